"""Which class of transformers a checkpoint is of, and what that class ties: one table, and one set of tie-breaks.

- `tasks`       what classes are for, and where transformers lists them
- `classes`     the table: the classes of a model type, and the names that each has
- `sightings`   how the names of a checkpoint look as those of a model type, and how well each class fits
- `tie_breaks`  what tells classes apart that have the same layers
- `inference`   the answer: the class, why, and what stands before its names
- `ties`        which of its names are one tensor
- `transformers_4`  what the table of TensorFlow's names says besides, and how classes of releases before 5 differ

What a class must find in a folder, names and shapes, is a question of the same table.
"""
