"""Photos behind a URL: object stores, hubs, archives, by way of fsspec.

``addresses`` says what a URL is and keeps secrets out of texts, ``places`` opens the file system that it names,
``listing`` lists without holding what it lists, ``reading`` reads; ``patience`` tries again what may yet succeed, and
``failures`` says in our own words what did not.
"""
