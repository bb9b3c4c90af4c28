//! The table of all settings. The flags of `serve`, the file's keys, `--help`, the README's table and
//! `postroom.example.toml` follow it, and a test holds them to it.

/// One setting: the same name as environment variable, flag and key of the configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// Section and key in the configuration file.
    pub file_key: (&'static str, &'static str),
    /// What holds when nobody says otherwise; empty means unset.
    pub default: &'static str,
    /// What it is for, with its unit.
    pub about: &'static str,
    /// A secret is given by the environment or by a file of its own (`<NAME>_FILE`), never by a flag or in clear in the
    /// file.
    pub secret: bool,
}

impl Setting {
    /// The flag of `postroom serve`, without the dashes: `POSTROOM_SERVER_IDLE_SECONDS` is `--server-idle-seconds`.
    pub fn flag(&self) -> String {
        self.name.trim_start_matches("POSTROOM_").to_ascii_lowercase().replace('_', "-")
    }
}

const fn setting(
    name: &'static str,
    file_key: (&'static str, &'static str),
    default: &'static str,
    about: &'static str,
) -> Setting {
    Setting { name, file_key, default, about, secret: false }
}

const fn secret(name: &'static str, file_key: (&'static str, &'static str), about: &'static str) -> Setting {
    Setting { name, file_key, default: "", about, secret: true }
}

/// Every setting, in the order of the documents.
pub const SETTINGS: &[Setting] = &[
    secret(
        "WEBHOOK_SECRET",
        ("webhook", "secret_file"),
        "Secret that signs POST /webhook (HMAC-SHA256); required unless another door has one",
    ),
    secret(
        "WEBHOOK_SECRET_PREVIOUS",
        ("webhook", "previous_secret_file"),
        "The secret before it, which stays good until it is taken away",
    ),
    setting(
        "DATABASE_URL",
        ("database", "url"),
        "sqlite:////data/app.db",
        "Where messages are kept: sqlite:////absolute/path, sqlite:///relative/path or postgres://user@host/database",
    ),
    setting("LOG_LEVEL", ("log", "level"), "INFO", "Least level logged: DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    setting("HOST", ("server", "host"), "0.0.0.0", "Address to listen on"),
    setting("PORT", ("server", "port"), "8000", "Port to listen on; 0 takes a free one and logs it"),
    setting("MAX_BODY_BYTES", ("server", "max_body_bytes"), "1048576", "Most bytes of a request body; more is 413"),
    setting(
        "PUBLIC_BASE_URL",
        ("server", "public_base_url"),
        "",
        "Scheme, host and perhaps a path under which providers reach us, for those that sign the URL: https://hooks.example.com",
    ),
    secret(
        "API_TOKEN",
        ("api", "token_file"),
        "Bearer tokens for reading, comma-separated, or sha256: and their digest; unset leaves reading open",
    ),
    secret(
        "POSTROOM_API_OPERATOR_TOKEN",
        ("api", "operator_token_file"),
        "Tokens for calls that act, and for reading; in the same form. Unset leaves such calls to administrators",
    ),
    secret(
        "POSTROOM_API_ADMIN_TOKEN",
        ("api", "admin_token_file"),
        "Tokens for calls that erase, and for all others; in the same form. Unset leaves such calls to nobody",
    ),
    setting(
        "POSTROOM_METRICS_PUBLIC",
        ("metrics", "public"),
        "",
        "Whether /metrics is open without a token (true or false); by default only while API_TOKEN is unset",
    ),
    setting(
        "POSTROOM_SERVER_HEADER_SECONDS",
        ("server", "header_seconds"),
        "10",
        "Longest wait for a whole request head; then the connection is closed",
    ),
    setting(
        "POSTROOM_SERVER_HEADER_BYTES_MAX",
        ("server", "header_bytes_max"),
        "16384",
        "Most bytes of a request head; more is 431",
    ),
    setting(
        "POSTROOM_SERVER_HEADERS_MAX",
        ("server", "headers_max"),
        "64",
        "Most header fields of a request; more is 431",
    ),
    setting(
        "POSTROOM_SERVER_BODY_SECONDS",
        ("server", "body_seconds"),
        "30",
        "Longest wait for a whole request body; then 408",
    ),
    setting(
        "POSTROOM_SERVER_BODIES_BYTES_MAX",
        ("server", "bodies_bytes_max"),
        "67108864",
        "Most bytes of all bodies under way together, beyond the first 16 KiB of each; more is 503",
    ),
    setting(
        "POSTROOM_SERVER_IDLE_SECONDS",
        ("server", "idle_seconds"),
        "75",
        "How long a connection may rest between requests, or take nothing of an answer, before it is closed",
    ),
    setting(
        "POSTROOM_SERVER_REQUEST_SECONDS",
        ("server", "request_seconds"),
        "60",
        "Longest time from a request's head to its answer; then 503",
    ),
    setting(
        "POSTROOM_SERVER_CONNECTIONS_MAX",
        ("server", "connections_max"),
        "4096",
        "Most connections at once; beyond them, those without progress give way to new ones",
    ),
    setting(
        "POSTROOM_SERVER_DRAIN_SECONDS",
        ("server", "drain_seconds"),
        "0",
        "How long after SIGTERM messages are still taken while readiness is red; then the stop begins",
    ),
    setting(
        "POSTROOM_SERVER_GRACE_SECONDS",
        ("server", "grace_seconds"),
        "10",
        "How long a stop waits for requests under way",
    ),
    setting(
        "POSTROOM_SERVER_READ_PORT",
        ("server", "read_port"),
        "",
        "Port for reading and metrics; the doors' port then answers nothing else but health. 0 takes a free one",
    ),
    setting(
        "POSTROOM_SERVER_READ_HOST",
        ("server", "read_host"),
        "127.0.0.1",
        "Address for reading, where it has a port of its own",
    ),
    setting(
        "POSTROOM_SERVER_READS_PER_MINUTE",
        ("server", "reads_per_minute"),
        "0",
        "Most reads a minute from one address; more are 429. 0 for no limit",
    ),
    setting(
        "POSTROOM_SERVER_CORS_ORIGINS",
        ("server", "cors_origins"),
        "",
        "Origins, comma-separated, whose pages may read with a browser: https://app.example.com; * for all; none by default",
    ),
    setting(
        "POSTROOM_SERVER_TRUSTED_PROXIES",
        ("server", "trusted_proxies"),
        "",
        "Addresses or networks, comma-separated, whose X-Forwarded-Proto and -Host are believed; nobody's by default",
    ),
    setting(
        "POSTROOM_DOORS_BODY_BYTES_MAX",
        ("doors", "body_bytes_max"),
        "4194304",
        "Most bytes of a request body at the doors of providers (/webhook/{name}); more is 413",
    ),
    setting(
        "POSTROOM_DOORS_POSTS_PER_SECOND",
        ("doors", "posts_per_second"),
        "0",
        "Most believed requests a second at each door; more are 429. 0 for no limit",
    ),
    setting(
        "POSTROOM_QUARANTINE_FOLDER",
        ("quarantine", "folder"),
        "",
        "Folder that keeps the last refused requests for `postroom verify --quarantine`; unset keeps none",
    ),
    setting(
        "POSTROOM_QUARANTINE_REQUESTS_MAX",
        ("quarantine", "requests_max"),
        "100",
        "How many refused requests are kept, each up to 64 KiB; then the oldest is overwritten",
    ),
    setting(
        "POSTROOM_STORE_QUEUE_MAX",
        ("store", "queue_max"),
        "1024",
        "Most messages waiting for the writer; more are answered 503 at once",
    ),
    setting("POSTROOM_STORE_BATCH_MAX", ("store", "batch_max"), "1024", "Most messages in one commit"),
    setting(
        "POSTROOM_STORE_LOCK_SECONDS",
        ("store", "lock_seconds"),
        "5",
        "How long a write waits for another process's lock on the file; then 503",
    ),
    setting(
        "POSTROOM_STORE_QUERY_SECONDS",
        ("store", "query_seconds"),
        "5",
        "Longest time for a listing, search or statistic; then 503",
    ),
    setting(
        "POSTROOM_STORE_READERS",
        ("store", "readers"),
        "2",
        "Threads that answer listings, searches and statistics",
    ),
    setting(
        "POSTROOM_STORE_CHECKPOINT_PAGES",
        ("store", "checkpoint_pages"),
        "8192",
        "Pages of 4 KiB in the write-ahead log before they are moved into the database file",
    ),
    setting(
        "POSTROOM_STORE_LOG_PAGES_MAX",
        ("store", "log_pages_max"),
        "2097152",
        "Pages of 4 KiB to which another program that holds an old state open may let the log grow; then 507",
    ),
    secret(
        "POSTROOM_POSTGRES_PASSWORD",
        ("postgres", "password_file"),
        "Password for PostgreSQL, in place of one in DATABASE_URL",
    ),
    setting(
        "POSTROOM_POSTGRES_WRITERS",
        ("postgres", "writers"),
        "2",
        "Connections that write, each a batch at a time; a further one is used where a commit takes long",
    ),
    setting(
        "POSTROOM_POSTGRES_CONNECT_SECONDS",
        ("postgres", "connect_seconds"),
        "5",
        "Longest wait for a connection to PostgreSQL",
    ),
    setting(
        "POSTROOM_POSTGRES_WRITE_SECONDS",
        ("postgres", "write_seconds"),
        "10",
        "Longest wait for a commit, that of a synchronous standby included; then 503",
    ),
    setting(
        "POSTROOM_POSTGRES_SYNCHRONOUS_COMMIT",
        ("postgres", "synchronous_commit"),
        "",
        "What a commit waits for: remote_apply, on, remote_write, local or off; by default what the server says, at least on",
    ),
    setting(
        "POSTROOM_REQUIRE_SYNC_STANDBY",
        ("postgres", "require_sync_standby"),
        "false",
        "Whether readiness needs a synchronous standby (true or false), without which a promotion may lose messages",
    ),
];

/// The setting of that environment variable.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The known name most like `typed`, if any is near enough to be what was meant.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(typed, name), name))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
