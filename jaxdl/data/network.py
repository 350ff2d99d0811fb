"""Whether a server answers, found out within seconds."""

import http.client
import threading
import urllib.error
import urllib.request

PATIENCE = 3.0
"""Seconds to wait for an answer."""


def unreachable(url: str, patience: float = PATIENCE) -> str | None:
    """Asks for the headers of a URL, through the proxies that the environment names.

    Returns:
      None where it can be fetched, else why not, in a few words.
    """
    answer: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            # Not urlopen, which for ever keeps the proxies of its first call.
            opener = urllib.request.build_opener()
            opener.open(request, timeout=patience).close()
            answer.append(None)
        except urllib.error.HTTPError as error:
            answer.append(f"HTTP status {error.code} {error.reason}")
        except urllib.error.URLError as error:
            reason = error.reason
            answer.append(getattr(reason, "strerror", None) or str(reason))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answer.append(str(error) or type(error).__name__)

    # In a thread, because looking up a name heeds no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience + 0.5)
    return answer[0] if answer else f"no answer within {patience:g} s"
