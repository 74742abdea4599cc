__version__ = "8.5.2.2"
