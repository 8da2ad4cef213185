"""The commands of the command line, a file a subject: each is a dataclass of its arguments with a method that runs it.

What a command needs is imported when it runs: `nri-fast doctor` must work where the native module does not.
"""
