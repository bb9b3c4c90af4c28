-- What providers tell beyond the six columns: details of messages, what became of sent ones, everything else, and the raw
-- bodies that all of it came in. Nothing here can be built again from `messages`, but for the counts of states.

-- Numbers are taken only by rows that are new, so they follow each other as long as no two replicas write the same.
CREATE SEQUENCE IF NOT EXISTS postroom_payload_numbers;
CREATE SEQUENCE IF NOT EXISTS postroom_event_numbers;

CREATE TABLE IF NOT EXISTS postroom_payloads (
    payload_id BIGINT PRIMARY KEY,
    -- SHA-256 of the door, the kept headers and the bytes: the same delivery is kept once.
    digest BYTEA NOT NULL UNIQUE,
    source TEXT NOT NULL,
    provider TEXT NOT NULL,
    headers TEXT NOT NULL,
    -- 'deflate' or 'identity'.
    encoding TEXT NOT NULL,
    -- Length of the bytes before they were packed.
    bytes BIGINT NOT NULL,
    body BYTEA NOT NULL,
    received_at TEXT NOT NULL
);
-- The bodies are packed already.
ALTER TABLE postroom_payloads ALTER COLUMN body SET STORAGE EXTERNAL;

-- `fields` is the JSON object that clients see; what is searched by stands beside it.
CREATE TABLE IF NOT EXISTS postroom_details (
    message_id TEXT COLLATE "C" PRIMARY KEY,
    provider_id TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    fields TEXT NOT NULL,
    payload_id BIGINT
);
-- Whatever a provider sends has to fit into an index.
CREATE INDEX IF NOT EXISTS postroom_details_provider_id ON postroom_details (left(provider_id, 200), message_id);

-- A record per message, recipient and state: copies of a status are one.
CREATE TABLE IF NOT EXISTS postroom_statuses (
    message_id TEXT COLLATE "C" NOT NULL,
    recipient TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    at TEXT COLLATE "C" NOT NULL,
    error TEXT,
    provider_id TEXT COLLATE "C" NOT NULL,
    source TEXT NOT NULL,
    received_at TEXT NOT NULL,
    payload_id BIGINT,
    -- Which attempt of which replica wrote the row.
    ingest_id BIGINT,
    PRIMARY KEY (message_id, recipient, state)
);
CREATE INDEX IF NOT EXISTS postroom_statuses_provider_id ON postroom_statuses (left(provider_id, 200), message_id);

-- The greatest state that a message ever had at a recipient, and the one that it had before.
CREATE TABLE IF NOT EXISTS postroom_states (
    message_id TEXT COLLATE "C" NOT NULL,
    recipient TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    previous TEXT COLLATE "C",
    PRIMARY KEY (message_id, recipient)
);
-- How many there are in each state: the counts, and what was not added to them yet.
CREATE TABLE IF NOT EXISTS postroom_state_counts (
    state TEXT COLLATE "C" PRIMARY KEY,
    messages BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS postroom_state_changes (
    change_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state TEXT COLLATE "C" NOT NULL,
    messages BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS postroom_events (
    event_id BIGINT PRIMARY KEY,
    event_key TEXT COLLATE "C" NOT NULL UNIQUE,
    source TEXT COLLATE "C" NOT NULL,
    provider TEXT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    body TEXT,
    received_at TEXT NOT NULL,
    payload_id BIGINT,
    ingest_id BIGINT
);
CREATE INDEX IF NOT EXISTS postroom_events_kind ON postroom_events (kind, event_id);
CREATE INDEX IF NOT EXISTS postroom_events_source ON postroom_events (source, event_id);
CREATE INDEX IF NOT EXISTS postroom_events_payload ON postroom_events (payload_id);
