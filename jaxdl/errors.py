"""The one exception that means "what you asked for cannot be done, and here is why"."""


class InputError(ValueError):
    """Raised for input at fault: an option, a file, a data set, a checkpoint.

    The message is one line that names the bad value, says what is allowed and how to
    mend it. The library raises it and never prints or exits; the experiments turn it
    into that line on stderr and exit code 2.
    """
