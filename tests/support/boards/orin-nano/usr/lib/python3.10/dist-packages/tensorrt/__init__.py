__version__ = "10.3.0"
