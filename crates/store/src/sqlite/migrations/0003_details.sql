-- What providers tell beyond the six columns: details of messages, what became of sent ones, everything else, and the raw
-- bodies that all of it came in.
--
-- Unlike the summaries, nothing here can be built again from `messages`. It is made where it is absent, and never dropped.

CREATE TABLE IF NOT EXISTS postroom_payloads (
    payload_id INTEGER PRIMARY KEY,
    -- SHA-256 of the door, the kept headers and the bytes: the same delivery is kept once.
    digest BLOB NOT NULL UNIQUE,
    source TEXT NOT NULL,
    provider TEXT NOT NULL,
    headers TEXT NOT NULL,
    -- 'deflate' or 'identity'.
    encoding TEXT NOT NULL,
    -- Length of the bytes before they were packed.
    bytes INTEGER NOT NULL,
    body BLOB NOT NULL,
    received_at TEXT NOT NULL
);

-- `fields` is the JSON object that clients see; what is searched by stands beside it.
CREATE TABLE IF NOT EXISTS postroom_details (
    message_id TEXT PRIMARY KEY,
    provider_id TEXT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    fields TEXT NOT NULL,
    payload_id INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS postroom_details_provider_id ON postroom_details (provider_id);

-- A record per message, recipient and state: copies of a status are one.
CREATE TABLE IF NOT EXISTS postroom_statuses (
    message_id TEXT NOT NULL,
    recipient TEXT NOT NULL,
    state TEXT NOT NULL,
    at TEXT NOT NULL,
    error TEXT,
    provider_id TEXT NOT NULL,
    source TEXT NOT NULL,
    received_at TEXT NOT NULL,
    payload_id INTEGER,
    PRIMARY KEY (message_id, recipient, state)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS postroom_statuses_provider_id ON postroom_statuses (provider_id, message_id);

-- The greatest state that a message ever had at a recipient, and how many there are of each.
CREATE TABLE IF NOT EXISTS postroom_states (
    message_id TEXT NOT NULL,
    recipient TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (message_id, recipient)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS postroom_state_counts (state TEXT PRIMARY KEY, messages INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS postroom_events (
    event_id INTEGER PRIMARY KEY,
    event_key TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    provider TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT,
    received_at TEXT NOT NULL,
    payload_id INTEGER
);
CREATE INDEX IF NOT EXISTS postroom_events_kind ON postroom_events (kind, event_id);
CREATE INDEX IF NOT EXISTS postroom_events_source ON postroom_events (source, event_id);
CREATE INDEX IF NOT EXISTS postroom_events_payload ON postroom_events (payload_id);
