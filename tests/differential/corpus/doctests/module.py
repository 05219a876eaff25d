"""A module with examples.

>>> 1 + 1
2
>>> print("ünï")
ünï
"""


def right():
    """
    >>> right()
    'right'
    """
    return "right"


def wrong():
    """
    >>> wrong()
    'something else'
    >>> 1 / 0
    Traceback (most recent call last):
    ...
    ZeroDivisionError: division by zero
    """
    return "wrong"


def raising():
    """
    >>> raising()
    1
    """
    raise ValueError("raised")


def skipped():
    """
    >>> skipped()  # doctest: +SKIP
    1
    """


def fixture():
    """
    >>> getfixture("tmp_path").is_dir()
    True
    >>> name
    'from the namespace'
    """
