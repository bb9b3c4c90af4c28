-- The names by which an index beside the file knows that it is of this file: the newest first, 33 bytes each. A name is put in front
-- before the index is saved under it, so whatever has the name descends from what the index covers.
CREATE TABLE IF NOT EXISTS postroom_tie (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), names TEXT NOT NULL);
