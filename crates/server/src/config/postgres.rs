//! `postgres://` and `postgresql://`: the settings of a PostgreSQL server.

use std::time::Duration;

use super::{ConfigError, Inputs, complaint};
use store::postgres::config::{PASSWORD, PostgresConfig, RotatedFiles, SynchronousCommit};
use store::postgres::url::{ConnectionUrl, password_of_file};

/// Validates a URL of one of the two schemes. `problem` never contains more of it than the name of a parameter.
pub(super) fn load(url: &str, origin: &str, inputs: &Inputs) -> Result<PostgresConfig, ConfigError> {
    let complain = |problem: String| ConfigError::Setting { origin: origin.to_owned(), problem };
    let ConnectionUrl { mut connection, trust, other_way, passfile } = ConnectionUrl::parse(url).map_err(complain)?;
    let mut rotated = RotatedFiles { url: inputs.file_of_value(origin), ..RotatedFiles::default() };
    if let Some(password) = inputs.secret(PASSWORD)? {
        connection.password(password.expose());
        rotated.password = inputs.file_of_secret(PASSWORD);
    } else if connection.get_password().is_none() && !passfile.as_os_str().is_empty() {
        let password = password_of_file(&passfile, &connection).map_err(complain)?;
        connection.password(password);
        rotated.passfile = Some(passfile);
    }
    let seconds = |name| inputs.number(name, 1, 3_600).map(Duration::from_secs);
    Ok(PostgresConfig {
        connection,
        trust,
        other_way,
        rotated,
        writers: inputs.number("POSTROOM_POSTGRES_WRITERS", 1, 64)? as usize,
        connect_timeout: seconds("POSTROOM_POSTGRES_CONNECT_SECONDS")?,
        write_timeout: seconds("POSTROOM_POSTGRES_WRITE_SECONDS")?,
        synchronous_commit: synchronous_commit(inputs)?,
        require_sync_standby: truth(inputs, "POSTROOM_REQUIRE_SYNC_STANDBY")?,
    })
}

fn synchronous_commit(inputs: &Inputs) -> Result<Option<SynchronousCommit>, ConfigError> {
    let given = inputs.value("POSTROOM_POSTGRES_SYNCHRONOUS_COMMIT")?;
    if given.value.is_empty() {
        return Ok(None);
    }
    match SynchronousCommit::named(&given.value.to_ascii_lowercase()) {
        Some(chosen) => Ok(Some(chosen)),
        None => Err(complaint(given, |value| {
            format!("must be remote_apply, on, remote_write, local or off, not '{value}'")
        })),
    }
}

fn truth(inputs: &Inputs, name: &str) -> Result<bool, ConfigError> {
    let given = inputs.value(name)?;
    match given.value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "" | "false" => Ok(false),
        _ => Err(complaint(given, |value| format!("must be true or false, not '{value}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use store::postgres::config::{Roots, Trust};
    use tokio_postgres::config::SslMode;

    fn load_with(url: &str, environment: &[(&str, &str)]) -> Result<PostgresConfig, String> {
        let environment: BTreeMap<_, _> =
            environment.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        let inputs = Inputs::new(BTreeMap::new(), environment, None).unwrap();
        super::load(url, "DATABASE_URL", &inputs).map_err(|error| error.to_string())
    }

    fn load(url: &str) -> Result<PostgresConfig, String> {
        load_with(url, &[])
    }

    #[test]
    fn what_people_write_is_understood() {
        let config =
            load("postgres://ada:s%40cret@db.example:5433/inbox?connect_timeout=3&application_name=x").unwrap();
        assert_eq!(config.place(), "PostgreSQL db.example:5433/inbox");
        assert_eq!(config.connection.get_password(), Some(&b"s@cret"[..]));
        assert_eq!((config.writers, config.trust), (2, Trust::Anyone));
        let socket = load("postgresql://ada@/inbox?host=/run/postgresql&gssencmode=disable").unwrap();
        assert_eq!(socket.place(), "PostgreSQL /run/postgresql:5432/inbox");
        let sockets = load("postgres://ada@/x?host=/run/a,%2Frun%2Fb").unwrap();
        assert_eq!(sockets.place(), "PostgreSQL /run/a,/run/b:5432/x");
        assert!(load("postgres://ada@a/x?host=b").unwrap_err().contains("hosts twice"));
        let two = load("postgres://ada@a:1,b:2/x?target_session_attrs=read-write").unwrap();
        assert_eq!(two.place(), "PostgreSQL a,b:1,2/x");
    }

    #[test]
    fn how_much_is_proved_follows_libpq() {
        let trust = |query: &str| load(&format!("postgres://a@b/c?{query}")).map(|config| config.trust);
        assert_eq!(trust("sslmode=require"), Ok(Trust::Anyone));
        let file = || Roots::File("/ca.pem".into());
        assert_eq!(trust("sslmode=require&sslrootcert=/ca.pem"), Ok(Trust::Authority(file())));
        assert_eq!(trust("sslmode=verify-ca&sslrootcert=%2Fca.pem"), Ok(Trust::Authority(file())));
        assert_eq!(trust("sslmode=prefer&sslrootcert=/ca.pem"), Ok(Trust::Authority(file())));
        assert_eq!(trust("sslrootcert=/ca.pem"), Ok(Trust::Authority(file())));
        assert_eq!(trust("sslmode=disable&sslrootcert=/ca.pem"), Ok(Trust::Anyone));
        let ways = |mode: &str| {
            let config = load(&format!("postgres://a@b/c?sslmode={mode}")).unwrap();
            (config.connection.get_ssl_mode(), config.other_way)
        };
        assert_eq!(ways("prefer"), (SslMode::Prefer, Some(SslMode::Disable)));
        assert_eq!(ways("allow"), (SslMode::Disable, Some(SslMode::Require)));
        assert_eq!(ways("require"), (SslMode::Require, None));
        assert_eq!(trust("sslmode=verify-full"), Ok(Trust::Host(Roots::System)));
        assert_eq!(trust("sslrootcert=system"), Ok(Trust::Host(Roots::System)));
        assert!(trust("sslmode=verify-ca&sslrootcert=system").is_err());
        assert!(trust("sslmode=always").unwrap_err().contains("verify-full"));
        assert!(trust("sslkey=/k").unwrap_err().contains("sslkey"));
    }

    #[test]
    fn what_a_url_says_of_silent_servers_counts() {
        let of = |query: &str| {
            let connection = load(&format!("postgres://a@b/c?{query}")).unwrap().connection;
            let seconds = [connection.get_keepalives_idle(), connection.get_keepalives_interval().unwrap()];
            let seconds = seconds.map(|time| time.as_secs());
            (
                connection.get_keepalives(),
                seconds,
                connection.get_keepalives_retries(),
                connection.get_tcp_user_timeout().copied(),
            )
        };
        let seconds = |number| Some(Duration::from_secs(number));
        assert_eq!(of(""), (true, [10, 5], Some(3), seconds(10)));
        let given = "keepalives_idle=60&keepalives_interval=7&keepalives_count=9&tcp_user_timeout=25000";
        assert_eq!(of(given), (true, [60, 7], Some(9), seconds(25)));
        assert_eq!(of("keepalives_idle=60&keepalives_retries=4"), (true, [60, 5], Some(4), seconds(10)));
        assert_eq!(of("keepalives=0&tcp_user_timeout=0"), (false, [10, 5], Some(3), None));
        for bad in ["tcp_user_timeout=soon", "keepalives_count=many", "keepalives_idle=x"] {
            assert!(
                load(&format!("postgres://a@b/c?{bad}")).unwrap_err().contains(bad.split('=').next().unwrap()),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_came_from_files_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        let file = |name: &str| path(name).display().to_string();
        let password = |config: &PostgresConfig| config.current().map(|now| now.get_password().map(<[u8]>::to_vec));
        let is = |text: &str| Ok(Some(text.as_bytes().to_vec()));
        write("password", "one\n");
        let config =
            load_with("postgres://ada@db/inbox", &[("POSTROOM_POSTGRES_PASSWORD_FILE", &file("password"))]).unwrap();
        assert_eq!(password(&config), is("one"));
        write("password", "two\r\n");
        assert_eq!(password(&config), is("two"));
        std::fs::remove_file(path("password")).unwrap();
        let error = password(&config).unwrap_err();
        assert!(
            error.starts_with("POSTROOM_POSTGRES_PASSWORD_FILE names") && error.contains("cannot be read"),
            "{error}"
        );
        write("passfile", "*:*:*:*:three\n");
        let config = load(&format!("postgres://ada@db/inbox?passfile={}", file("passfile"))).unwrap();
        write("passfile", "*:*:*:eve:no\n*:*:*:ada:four\n");
        assert_eq!(password(&config), is("four"));
        write("url", "postgres://ada:five@db/inbox");
        let config = load_with("postgres://ada:five@db/inbox", &[("DATABASE_URL_FILE", &file("url"))]).unwrap();
        write("url", "postgres://eve:six@other/inbox\n");
        assert_eq!(password(&config), is("six"));
        assert_eq!(config.current().unwrap().get_user(), Some("eve"));
        write("url", "postgres://eve:s@six@other/inbox");
        assert!(!config.current().unwrap_err().contains("six"));
        let fixed = load("postgres://ada:seven@db/inbox").unwrap();
        assert_eq!(password(&fixed), is("seven"));
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = load("postgres://ada:hunter2@db/inbox").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        for bad in [
            "postgres://ada:hunter2@db:port/x",
            "postgres://ada:hunter2@db/x?nonsense=1",
            "postgres://ada:hunter2@db/x?sslmode=q",
            "postgres://ada:p@hunter2@db/x",
            "postgres://ada:p@hunter2@db/x?sslmode=require",
            "postgres://ada:p?hunter2@db/x?sslmode=require",
        ] {
            let error = load(bad).unwrap_err();
            assert!(error.starts_with("DATABASE_URL ") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_may_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        std::fs::write(&path, "# all\nother:*:*:*:no\ndb:5432:inbox:ada:a\\:b\\\\c:d\n").unwrap();
        let with = |url: &str| load(&format!("{url}?passfile={}", path.display()));
        let config = with("postgres://ada@db/inbox").unwrap();
        assert_eq!(config.connection.get_password(), Some(&b"a:b\\c:d"[..]));
        assert!(with("postgres://eve@db/inbox").unwrap_err().contains("passfile"));
        let given = load_with("postgres://ada:x@db/inbox", &[("POSTROOM_POSTGRES_PASSWORD", "y")]).unwrap();
        assert_eq!(given.connection.get_password(), Some(&b"y"[..]));
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        let complaint = |name, value| load_with("postgres://a@b/c", &[(name, value)]).unwrap_err();
        assert!(complaint("POSTROOM_POSTGRES_SYNCHRONOUS_COMMIT", "maybe").contains("remote_apply"));
        assert!(complaint("POSTROOM_REQUIRE_SYNC_STANDBY", "1").contains("true or false"));
        assert!(complaint("POSTROOM_POSTGRES_WRITERS", "0").contains("from 1 to 64"));
    }
}
