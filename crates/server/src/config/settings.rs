//! The table of all settings. The flags of `serve`, the file's keys, `--help`, the README's table and
//! `postroom.example.toml` follow it, and a test checks that.

/// One setting: the same name as environment variable, flag and key of the configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// Section and key in the configuration file.
    pub file_key: (&'static str, &'static str),
    /// The default; empty means unset.
    pub default: &'static str,
    /// Its purpose, with its unit.
    pub about: &'static str,
    /// A secret is given by the environment or by its own file (`<NAME>_FILE`), never by a flag or in clear in
    /// the configuration file.
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
        "Secret that signs POST /webhook (HMAC-SHA256); required unless another source has one",
    ),
    secret(
        "WEBHOOK_SECRET_PREVIOUS",
        ("webhook", "previous_secret_file"),
        "Previous secret; stays valid until it is removed",
    ),
    setting(
        "DATABASE_URL",
        ("database", "url"),
        "sqlite:////data/app.db",
        "Where messages are kept: sqlite:////absolute/path, sqlite:///relative/path or postgres://user@host/database",
    ),
    setting("LOG_LEVEL", ("log", "level"), "INFO", "Least level logged: DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    setting("HOST", ("server", "host"), "0.0.0.0", "Address to listen on"),
    setting("PORT", ("server", "port"), "8000", "Port to listen on; 0 chooses a free one and logs it"),
    setting("MAX_BODY_BYTES", ("server", "max_body_bytes"), "1048576", "Maximum bytes of a request body; more is 413"),
    setting(
        "PUBLIC_BASE_URL",
        ("server", "public_base_url"),
        "",
        "Public URL under which providers reach Postroom, for providers that sign the URL: https://hooks.example.com",
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
        "Maximum wait for a whole request head; then the connection is closed",
    ),
    setting(
        "POSTROOM_SERVER_HEADER_BYTES_MAX",
        ("server", "header_bytes_max"),
        "16384",
        "Maximum bytes of a request head; more is 431",
    ),
    setting(
        "POSTROOM_SERVER_HEADERS_MAX",
        ("server", "headers_max"),
        "64",
        "Maximum header fields of a request; more is 431",
    ),
    setting(
        "POSTROOM_SERVER_BODY_SECONDS",
        ("server", "body_seconds"),
        "30",
        "Maximum wait for a whole request body; then 408",
    ),
    setting(
        "POSTROOM_SERVER_BODIES_BYTES_MAX",
        ("server", "bodies_bytes_max"),
        "67108864",
        "Maximum bytes of all bodies in progress, beyond the first 16 KiB of each; more is 503",
    ),
    setting(
        "POSTROOM_SERVER_IDLE_SECONDS",
        ("server", "idle_seconds"),
        "75",
        "Maximum idle time of a connection, between requests or while the client reads nothing of a response",
    ),
    setting(
        "POSTROOM_SERVER_REQUEST_SECONDS",
        ("server", "request_seconds"),
        "60",
        "Maximum time from a request's head to its response; then 503",
    ),
    setting(
        "POSTROOM_SERVER_CONNECTIONS_MAX",
        ("server", "connections_max"),
        "4096",
        "Maximum connections; beyond it, connections without progress are closed in favour of new ones",
    ),
    setting(
        "POSTROOM_SERVER_DRAIN_SECONDS",
        ("server", "drain_seconds"),
        "0",
        "How long after SIGTERM messages are still accepted while readiness is 503; then the stop begins",
    ),
    setting(
        "POSTROOM_SERVER_GRACE_SECONDS",
        ("server", "grace_seconds"),
        "10",
        "How long a stop waits for requests in progress",
    ),
    setting(
        "POSTROOM_SERVER_READ_PORT",
        ("server", "read_port"),
        "",
        "Port for reading and metrics; the main port then serves only sources and health. 0 chooses a free one",
    ),
    setting("POSTROOM_SERVER_READ_HOST", ("server", "read_host"), "127.0.0.1", "Address for the read port"),
    setting(
        "POSTROOM_SERVER_READS_PER_MINUTE",
        ("server", "reads_per_minute"),
        "0",
        "Maximum reads per minute from one address; more are 429. 0: no limit",
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
        "Addresses or networks, comma-separated, whose X-Forwarded-Proto and -Host are trusted; none by default",
    ),
    setting(
        "POSTROOM_SOURCES_BODY_BYTES_MAX",
        ("sources", "body_bytes_max"),
        "4194304",
        "Maximum bytes of a request body at provider sources (/webhook/{name}); more is 413",
    ),
    setting(
        "POSTROOM_SOURCES_POSTS_PER_SECOND",
        ("sources", "posts_per_second"),
        "0",
        "Maximum verified requests per second at each source; more are 429. 0: no limit",
    ),
    setting(
        "POSTROOM_QUARANTINE_FOLDER",
        ("quarantine", "folder"),
        "",
        "Folder that keeps the latest refused requests for `postroom verify --quarantine`; unset keeps none",
    ),
    setting(
        "POSTROOM_QUARANTINE_REQUESTS_MAX",
        ("quarantine", "requests_max"),
        "100",
        "Maximum refused requests that are kept, each up to 64 KiB; then the oldest is overwritten",
    ),
    setting(
        "POSTROOM_STORE_QUEUE_MAX",
        ("store", "queue_max"),
        "1024",
        "Maximum messages waiting for the writer; more are 503 at once",
    ),
    setting("POSTROOM_STORE_BATCH_MAX", ("store", "batch_max"), "1024", "Maximum messages in one commit"),
    setting(
        "POSTROOM_STORE_LOCK_SECONDS",
        ("store", "lock_seconds"),
        "5",
        "Maximum wait of a write for another process's lock on the file; then 503",
    ),
    setting(
        "POSTROOM_STORE_QUERY_SECONDS",
        ("store", "query_seconds"),
        "5",
        "Maximum time of a listing, search or statistic; then 503",
    ),
    setting("POSTROOM_STORE_READERS", ("store", "readers"), "2", "Threads for listings, searches and statistics"),
    setting(
        "POSTROOM_STORE_CHECKPOINT_PAGES",
        ("store", "checkpoint_pages"),
        "8192",
        "Pages of 4 KiB in the write-ahead log at which a checkpoint moves them into the database file",
    ),
    setting(
        "POSTROOM_STORE_LOG_PAGES_MAX",
        ("store", "log_pages_max"),
        "2097152",
        "Maximum pages of 4 KiB of the log while another program holds an old snapshot open; then 507",
    ),
    secret(
        "POSTROOM_POSTGRES_PASSWORD",
        ("postgres", "password_file"),
        "Password for PostgreSQL, instead of one in DATABASE_URL",
    ),
    setting(
        "POSTROOM_POSTGRES_WRITERS",
        ("postgres", "writers"),
        "2",
        "Connections that write, one batch each at a time; another one is used where a commit takes long",
    ),
    setting(
        "POSTROOM_POSTGRES_CONNECT_SECONDS",
        ("postgres", "connect_seconds"),
        "5",
        "Maximum wait for a connection to PostgreSQL",
    ),
    setting(
        "POSTROOM_POSTGRES_WRITE_SECONDS",
        ("postgres", "write_seconds"),
        "10",
        "Maximum wait for a commit, including a synchronous standby; then 503",
    ),
    setting(
        "POSTROOM_POSTGRES_SYNCHRONOUS_COMMIT",
        ("postgres", "synchronous_commit"),
        "",
        "What a commit waits for: remote_apply, on, remote_write, local or off; default: the server's value, at least on",
    ),
    setting(
        "POSTROOM_REQUIRE_SYNC_STANDBY",
        ("postgres", "require_sync_standby"),
        "false",
        "Whether readiness requires a synchronous standby (true or false); without one a promotion may lose messages",
    ),
];

/// The setting with this environment variable.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The known name most similar to `typed`, if any is similar enough.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(typed, name), name))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
