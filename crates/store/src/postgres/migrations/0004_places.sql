-- Where indexed texts lie in their table, so that thousands of matches are looked at without a way through the index each. A hint:
-- what is not there, or no longer true, is looked for by number.

-- Texts whose numbers have `chunk` in front, but for the last 13 bits, and where they were written.
CREATE TABLE IF NOT EXISTS postroom_places (
    chunk BIGINT PRIMARY KEY,
    places BYTEA NOT NULL
);
