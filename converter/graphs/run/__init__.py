"""Running a model on given inputs with the framework it belongs to, each in a process of its own."""
