//! Changes while the service runs: sources, their secrets, and read access. All of a change applies, or none.

use std::fs;
use std::path::Path;

use super::{envelope, text_message};
use crate::harness::{Reply, Server, Setup, TestSource, message, wait_until};

const BERLIN: &str = "[source.berlin]\nprovider = \"whatsapp\"\nsecret_file = \"berlin-secret\"\n";
const PARIS: &str = "[source.paris]\nprovider = \"whatsapp\"\nsecret_file = \"paris-secret\"\n";
const TOKEN: &str = "[api]\ntoken_file = \"token\"\n";

/// A server with these settings, and files for their secrets.
fn start(settings: &str) -> Server {
    let setup = Setup::new();
    for name in ["berlin", "paris"] {
        write(setup.path(), &format!("{name}-secret"), name);
    }
    write(setup.path(), "token", "first");
    write(setup.path(), "postroom.toml", settings);
    setup.env("POSTROOM_CONFIG", "postroom.toml").start()
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

/// Replaces a file, and waits until the service has loaded it, or has logged why it is refused.
fn exchange(server: &Server, name: &str, text: &str) -> serde_json::Value {
    let is_told = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message == "reloaded the settings" || message.contains("the previous ones stay in use")
    };
    let count = || server.lines().iter().filter(|line| is_told(line)).count();
    let before = count();
    write(server.folder().path(), name, text);
    server.signal("HUP");
    wait_until("the settings are read again", || (count() > before).then_some(()));
    server.lines().into_iter().rfind(is_told).unwrap()
}

/// Posts a message to the source with that name, signed with that secret.
fn post(server: &Server, name: &str, secret: &str, id: &str) -> u16 {
    let signer = Setup::new().env("WHATSAPP_APP_SECRET", secret);
    let mut source = TestSource::of(&signer, "whatsapp");
    source.path = format!("/webhook/{name}");
    source.post(server, &envelope(&[text_message(id, "x")]), "1").status
}

fn read(server: &Server, token: &str) -> Reply {
    let header = format!("Bearer {token}");
    server.client().request("GET", "/messages", &[("Authorization", &header)], b"").unwrap()
}

#[test]
fn sources_come_and_go_without_a_restart() {
    let server = start(BERLIN);
    assert_eq!((post(&server, "berlin", "berlin", "a"), post(&server, "paris", "paris", "b")), (200, 404));

    let told = exchange(&server, "postroom.toml", &format!("{BERLIN}{PARIS}"));
    assert_eq!((told["added"].as_str(), told["removed"].as_str(), &told["sources"]), (Some("paris"), None, &3.into()));
    assert_eq!((post(&server, "berlin", "berlin", "c"), post(&server, "paris", "paris", "d")), (200, 200));
    let filed = |name: &str| server.metric(&format!(r#"postroom_messages_total{{source="{name}",outcome="created"}}"#));
    assert_eq!((filed("berlin"), filed("paris")), (Some(2.0), Some(1.0)), "the new source is counted like the others");
    let uses = r#"postroom_secret_uses_total{source="berlin",secret="berlin-secret"}"#;
    assert_eq!(server.metric(uses), Some(2.0), "an unchanged secret goes on counting");

    let told = exchange(&server, "postroom.toml", PARIS);
    assert_eq!((told["added"].as_str(), told["removed"].as_str()), (None, Some("berlin")));
    assert_eq!((post(&server, "berlin", "berlin", "e"), post(&server, "paris", "paris", "f")), (404, 200));
    assert_eq!(filed("berlin"), Some(2.0), "a counter never goes back");
    server.store(&message("m1"));
    assert!(server.stop().0.success());
}

#[test]
fn a_source_may_become_one_of_another_kind() {
    let server = start(BERLIN);
    exchange(&server, "postroom.toml", &BERLIN.replace("whatsapp", "telegram"));
    assert_eq!(post(&server, "berlin", "berlin", "a"), 401, "that is no Telegram bot");
    let headers = [("X-Telegram-Bot-Api-Secret-Token", "berlin")];
    let reply = server.client().request("POST", "/webhook/berlin", &headers, br#"{"update_id":1}"#).unwrap();
    assert_eq!(reply.status, 200);
}

#[test]
fn tokens_for_reading_are_exchanged_without_a_restart() {
    let server = start(TOKEN);
    assert_eq!((read(&server, "first").status, read(&server, "second").status), (200, 401));
    exchange(&server, "token", "second,first");
    assert_eq!((read(&server, "first").status, read(&server, "second").status), (200, 200), "both, for a while");
    exchange(&server, "token", "second");
    assert_eq!((read(&server, "first").status, read(&server, "second").status), (401, 200));
    assert_eq!(server.get("/metrics").status, 401);
    // Without tokens everyone may read again, and this is logged.
    exchange(&server, "postroom.toml", "");
    assert_eq!((server.get("/messages").status, server.get("/metrics").status), (200, 200));
    server.wait_for_line(|line| line["message"].as_str().is_some_and(|text| text.contains("open to everyone")));
    exchange(&server, "postroom.toml", TOKEN);
    assert_eq!(server.get("/messages").status, 401);
}

#[test]
fn tokens_of_every_scope_are_exchanged_without_a_restart() {
    for key in ["operator_token_file", "admin_token_file"] {
        let settings = format!("{TOKEN}{key} = \"higher\"\n");
        let server = start(TOKEN);
        write(server.folder().path(), "higher", "one");
        assert_eq!((read(&server, "first").status, read(&server, "one").status), (200, 401));
        exchange(&server, "postroom.toml", &settings);
        assert_eq!((read(&server, "first").status, read(&server, "one").status), (200, 200), "{key}");
        exchange(&server, "higher", "two");
        assert_eq!((read(&server, "one").status, read(&server, "two").status), (401, 200), "{key}");
        let told = exchange(&server, "higher", "three,");
        assert!(told["error"].as_str().unwrap().contains("must not contain an empty token"), "{told}");
        assert_eq!(read(&server, "two").status, 200, "the previous ones stay in use");
        exchange(&server, "postroom.toml", TOKEN);
        assert_eq!((read(&server, "first").status, read(&server, "two").status), (200, 401));
    }
}

#[test]
fn settings_that_cannot_be_used_change_nothing_at_all() {
    let server = start(&format!("{TOKEN}{BERLIN}"));
    let folder = server.folder();
    // Each of these also contains a valid change, which must not be applied.
    write(folder.path(), "token", "second");
    write(folder.path(), "berlin-secret", "changed");
    let bad = [
        (format!("{TOKEN}{BERLIN}{PARIS}colour = \"red\"\n"), "colour is not a setting"),
        (format!("{TOKEN}{BERLIN}{}", PARIS.replace("paris-secret", "nowhere")), "cannot be read"),
        (format!("{TOKEN}{PARIS}[source.a]\nprovider = \"nobody\"\n"), "is not a provider"),
        (format!("{}{PARIS}", TOKEN.replace("\"token\"", "\"/dev/null\"")), "must not contain an empty token"),
        ("[api".to_owned(), "is not TOML"),
    ];
    for (settings, why) in bad {
        let told = exchange(&server, "postroom.toml", &settings);
        assert_eq!(told["level"], "ERROR");
        assert!(told["error"].as_str().unwrap().contains(why), "{told}");
        assert_eq!((read(&server, "first").status, read(&server, "second").status), (200, 401), "{why}");
        assert_eq!(post(&server, "paris", "paris", "a"), 404, "{why}");
        assert_eq!(post(&server, "berlin", "changed", "a"), 401, "{why}");
        assert_eq!(post(&server, "berlin", "berlin", "a"), 200, "{why}");
    }
    exchange(&server, "postroom.toml", &format!("{TOKEN}{BERLIN}{PARIS}"));
    assert_eq!((read(&server, "first").status, read(&server, "second").status), (401, 200));
    assert_eq!((post(&server, "berlin", "changed", "b"), post(&server, "paris", "paris", "c")), (200, 200));
}
