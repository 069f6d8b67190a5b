"""Photos behind a URL: object stores, hubs, archives, by way of fsspec.

``addresses`` parses URLs and keeps secrets out of messages, ``filesystems`` opens the file system that a URL names,
``listing`` lists objects page by page, ``reading`` reads them, ``retry`` repeats requests that may yet succeed, and
``failures`` translates the errors of the stores' libraries.
"""
