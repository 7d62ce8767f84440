"""What is said, in one clear message, when an input cannot be used."""


class Refusal(Exception):
    """An input cannot be used; the message names the file or key, the expected and the found.

    Stages print it without a traceback and exit with status 1. Anything else that is raised is a
    mistake of ours and keeps its traceback.
    """
