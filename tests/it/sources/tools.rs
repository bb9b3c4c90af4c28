//! The tools for sources: samples for beginners, explanations for developers, and parsing again after an
//! upgrade.

use std::fs;
use std::process::Output;

use super::{envelope, start, text_message};
use crate::harness::test_source::{PRIVATE_KEY, all_sources, now};
use crate::harness::{Setup, TestSource, on_a_file, wait_until};

/// Runs a subcommand with all sources configured; `files` are in its folder.
fn run(files: &[(&str, &[u8])], arguments: &[&str]) -> (bool, String) {
    let mut setup = all_sources(Setup::new());
    for (name, bytes) in files {
        fs::write(setup.path().join(name), bytes).unwrap();
    }
    for argument in arguments {
        setup = setup.arg(argument);
    }
    let (status, stdout, stderr) = setup.run();
    (status.success(), stdout + &stderr)
}

#[test]
fn samples_of_every_provider_arrive_as_they_would_from_it() {
    let (server, _) = start();
    let url = format!("http://{}", server.address);
    let send = |arguments: &[&str]| {
        let all: Vec<&str> = ["send", "--url", &url].iter().chain(arguments).copied().collect();
        run(&[], &all)
    };
    let (sent, told) = send(&["--as", "whatsapp"]);
    assert!(sent && told.contains("image.json to /webhook/whatsapp: 200"), "{told}");
    let image = server.get("/messages?kind=image").json();
    assert_eq!(image["data"][0]["text"], "Taj Mahal", "an image message is in the inbox");
    let others = [
        "twilio",
        "standard",
        "telegram",
        "waha",
        "evolution",
        "360dialog",
        "vonage",
        "messagebird",
        "bird",
        "line",
        "slack",
    ];
    for source in others.into_iter().chain(["plivo", "github", "stripe"]) {
        let (sent, told) = send(&["--as", source]);
        assert!(sent, "{source}: {told}");
    }
    let (sent, told) = send(&["--as", "telnyx"]);
    assert!(!sent && told.contains("pass --private-key"), "{told}");
    let arguments = ["send", "--url", &url, "--as", "telnyx", "--private-key", "key"];
    let (sent, told) = run(&[("key", format!("{PRIVATE_KEY}\n").as_bytes())], &arguments);
    assert!(sent && told.contains("mms.json to /webhook/telnyx: 200"), "{told}");
    let (sent, told) = run(&[("key", b"too short")], &arguments);
    assert!(!sent && told.contains("key is not"), "{told}");
    let (sent, told) = send(&["--as", "whatsapp", "text"]);
    assert!(sent && told.contains("text.json"), "a sample by its name: {told}");
    let (sent, told) = send(&["--as", "whatsapp", "no-such-sample"]);
    assert!(!sent && told.contains("batch-with-bad-parts.json"), "the known ones are listed: {told}");
    let (sent, told) = send(&["--as", "nobody"]);
    assert!(!sent && told.contains("there is no source 'nobody'"), "{told}");
    assert!(!run(&[], &["send"]).0, "without --as a file is needed");
}

#[test]
fn verify_says_what_is_wrong_with_a_captured_request() {
    let (_, source) = start();
    let whatsapp = source("whatsapp");
    let body = envelope(&[text_message("a", "ä/b")]);
    let header = |body: &[u8]| {
        let headers = whatsapp.headers(body, "1", now());
        format!("X-Hub-Signature-256: {}", headers["x-hub-signature-256"].to_str().unwrap())
    };
    let verify = |bytes: &[u8], header: &str, more: &[&str]| {
        let arguments = ["verify", "--source", "whatsapp", "--body", "body", "--header", header];
        run(&[("body", bytes)], &arguments.iter().chain(more).copied().collect::<Vec<_>>())
    };
    let good = header(&body);
    let (believed, told) = verify(&body, &good, &[]);
    assert!(believed && told.contains("verified, with the secret of WHATSAPP_APP_SECRET"), "{told}");
    let pretty = serde_json::to_vec_pretty(&serde_json::from_slice::<serde_json::Value>(&body).unwrap()).unwrap();
    let (believed, told) = verify(&pretty, &good, &[]);
    assert!(!believed && told.contains("wrong_secret") && told.contains("formatted again"), "{told}");
    let with_end = [body.as_slice(), b"\n"].concat();
    assert!(verify(&with_end, &good, &[]).1.contains("without the line end"));
    let escaped = String::from_utf8(body.clone()).unwrap().replace('ä', "\\u00e4").replace('/', "\\/");
    assert!(verify(&body, &header(escaped.as_bytes()), &[]).1.contains("Meta's escapes"));
    assert!(verify(&body, "X-Other: 1", &[]).1.contains("missing_header"));
    assert!(verify(&body, &good.to_uppercase().replace("X-HUB", "x-hub"), &[]).1.contains("malformed_signature"));
    assert!(verify(b"other", &good, &[]).1.contains("another secret was used"));
    assert!(!verify(&body, &good, &[]).1.contains("app-secret"), "no secret is shown");
}

#[test]
fn verify_knows_about_clocks_and_urls() {
    let (_, source) = start();
    let standard = source("standard");
    let headers = standard.headers(b"{}", "msg_1", now());
    let mut arguments = vec!["verify".to_owned(), "--source".into(), "standard".into(), "--body".into(), "body".into()];
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        arguments.extend(["--header".to_owned(), format!("{name}: {}", headers[name].to_str().unwrap())]);
    }
    let ask = |more: &[&str]| {
        let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        run(&[("body", b"{}")], &all)
    };
    assert!(ask(&[]).0);
    let (believed, told) = ask(&["--at", "1614265330"]);
    assert!(!believed && told.contains("future_timestamp") && told.contains("clock"), "{told}");
    let twilio = source("twilio");
    let headers = twilio.headers(b"a=1", "1", now());
    let signature = format!("X-Twilio-Signature: {}", headers["x-twilio-signature"].to_str().unwrap());
    let form = "Content-Type: application/x-www-form-urlencoded";
    let arguments = ["verify", "--source", "twilio", "--body", "body", "--header", form, "--header", &signature];
    let ask = |target: &str| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--target", target]).collect();
        run(&[("body", b"a=1")], &all)
    };
    assert!(ask("/webhook/twilio").0);
    assert!(ask("/webhook/twilio/").1.contains("slash"), "{}", ask("/webhook/twilio/").1);
    assert!(ask("/webhook/twilio?x=1").1.contains("without its query"));
}

#[test]
fn what_could_not_be_read_is_read_again_after_an_upgrade() {
    let (server, source) = start();
    let body = envelope(&[text_message("a", "x"), text_message("b", "y")]);
    assert_eq!(source("whatsapp").post(&server, &body, "1").status, 200);
    // Simulates an older version: the body is stored, but one message was not parsed.
    server.stored().execute(
        "DELETE FROM messages WHERE message_id = 'whatsapp:7:b';
         INSERT INTO postroom_events (event_id, event_key, source, provider, kind, body, received_at, payload_id)
             SELECT 1000, 'old', 'whatsapp', 'whatsapp', 'unreadable', '{}', received_at, payload_id FROM postroom_payloads;",
    );
    assert_eq!(server.rows(), 1);
    let setup = all_sources(Setup::in_folder(server.folder())).arg("reparse");
    let (status, told, stderr) = setup.run();
    assert!(status.success(), "{told}{stderr}");
    assert!(told.contains("1 parsed again") && told.contains("messages   1 new"), "{told}");
    assert_eq!(server.rows(), 2);
    assert!(server.get("/events?kind=unreadable").json()["data"].as_array().unwrap().is_empty());
    let again: Output = all_sources(Setup::in_folder(server.folder())).arg("reparse").command().output().unwrap();
    assert!(String::from_utf8_lossy(&again.stdout).contains("bodies     0 parsed again"));
    let all: Output =
        all_sources(Setup::in_folder(server.folder())).arg("reparse").arg("--all").command().output().unwrap();
    let told = String::from_utf8_lossy(&all.stdout).into_owned();
    assert!(told.contains("bodies     1 parsed again") && told.contains("messages   0 new"), "{told}");
}

#[test]
fn a_mistyped_database_is_not_made_by_looking_for_bodies() {
    if !on_a_file("on PostgreSQL a database is not made by naming it") {
        return;
    }
    let setup = Setup::new().arg("reparse");
    let (status, _, told) = setup.run();
    assert_eq!((status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("there is no database"), "{told}");
    assert!(!setup.database().exists());
}

#[test]
fn refused_requests_are_kept_if_asked_and_stored_once_the_secret_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let kept = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let setup = || Setup::new().env("POSTROOM_QUARANTINE_FOLDER", folder.path().display());
    let server = setup().env("WHATSAPP_APP_SECRET", "the-wrong-one").start();
    let (_, source) = start();
    let body = envelope(&[text_message("a", "x")]);
    let mut headers = source("whatsapp").headers(&body, "1", now());
    headers.insert("authorization", "Bearer secret-token".parse().unwrap());
    headers.insert("x-postroom-token", "secret-token".parse().unwrap());
    assert_eq!(source("whatsapp").post_with(&server, &body, &headers).status, 401);
    let path = wait_until("it is kept", || kept().pop());
    let text = wait_until("it is written", || fs::read_to_string(&path).ok().filter(|text| text.ends_with('}')));
    assert!(text.contains("x-hub-signature-256") && !text.contains("secret-token"), "{text}");
    let verify = |secret: &str, arguments: &[&str]| {
        let mut setup = Setup::in_folder(server.folder())
            .env("POSTROOM_QUARANTINE_FOLDER", folder.path().display())
            .env("WHATSAPP_APP_SECRET", secret)
            .arg("verify")
            .arg("--quarantine");
        for argument in arguments {
            setup = setup.arg(argument);
        }
        let (status, stdout, stderr) = setup.run();
        assert!(status.success(), "{stderr}");
        stdout
    };
    assert!(verify("the-wrong-one", &[]).contains("another secret was used"));
    assert!(verify("app-secret", &[]).contains("1 kept, 1 would verify now"));
    assert!(verify("app-secret", &["--readmit"]).contains("stored"));
    assert_eq!((server.rows(), kept().len()), (1, 0));
    // A file of another program is reported, and left unchanged.
    let strange = folder.path().join("strange.json");
    let (text, padding) = (r#"{"source":"whatsapp","reason":"","at":0,"target":"/","headers":{},"body":"#, r#""=="}"#);
    fs::write(&strange, [text, padding].concat()).unwrap();
    assert!(verify("app-secret", &["--readmit"]).contains("strange.json: cannot be read"));
    fs::remove_file(strange).unwrap();
    let off = Setup::new().start();
    assert_eq!(off.client().request("POST", "/webhook", &[], b"{}").unwrap().status, 401);
    assert!(kept().is_empty());
}

#[test]
fn a_refused_request_with_a_secret_in_a_header_is_kept_without_it_and_let_in_later() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("made/when/needed");
    let quarantine = |setup: Setup| setup.env("POSTROOM_QUARANTINE_FOLDER", folder.display());
    // A valid token for a source with another one; a header that is the secret; a token that is signed.
    let config = "[source.bridge]\nprovider = \"evolution\"\nsecret_env = \"BRIDGE\"\nheader = \"X-Bridge\"\n\
        [source.vonage]\nprovider = \"vonage\"\nsecret_env = \"VONAGE\"\n";
    let with = |setup: Setup, secret: &str| {
        let path = setup.path().join("sources.toml");
        fs::write(&path, config).unwrap();
        let setup = quarantine(setup).env("POSTROOM_CONFIG", path.display());
        ["TELEGRAM_SECRET_TOKEN", "EVOLUTION_JWT_KEY", "BRIDGE", "VONAGE"]
            .into_iter()
            .fold(setup, |setup, name| setup.env(name, secret))
    };
    let server = with(Setup::new(), "mistyped-secret").start();
    let right = with(Setup::new(), "the-right-secret");
    let bodies: [(&str, &[u8]); 4] = [
        ("telegram", br#"{"update_id":1,"message":{"message_id":5,"date":1736935200,"chat":{"id":7},"from":{"id":7},"text":"a"}}"#),
        ("evolution", br#"{"event":"connection.update","instance":"i","data":{"state":"open"}}"#),
        ("bridge", br#"{"event":"connection.update","instance":"j","data":{"state":"open"}}"#),
        ("vonage", br#"{"message_uuid":"u1","from":"14155550100","to":"14155550101","message_type":"text","text":"v","timestamp":"2025-01-15T10:00:00Z","channel":"sms"}"#),
    ];
    let kept = || {
        let paths = fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect::<Vec<_>>()
    };
    let told = quarantine(with(Setup::new(), "x")).arg("verify").arg("--quarantine").run();
    assert!(told.0.success() && told.1.contains("no request was refused yet"), "{told:?}");
    for (at, (name, body)) in bodies.iter().enumerate() {
        let source = TestSource::of(&right, name);
        // Each is kept after at most a tenth of a second.
        wait_until("it is kept", || {
            let status = source.post(&server, body, "1").status;
            assert!([401, 503].contains(&status), "{name}: {status}");
            (kept().len() > at).then_some(())
        });
    }
    let all: String = wait_until("the files are whole", || {
        let texts = kept().iter().map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>();
        texts.iter().all(|text| text.ends_with('}')).then(|| texts.concat())
    });
    assert!(!all.contains("the-right-secret"), "{all}");
    let signature = |name: &str, body: &[u8]| {
        let headers = TestSource::of(&right, name).headers(body, "1", now());
        headers["authorization"].to_str().unwrap().rsplit('.').next().unwrap().to_owned()
    };
    assert!(!all.contains(&signature("vonage", bodies[3].1)), "{all}");
    let verify = |secret: &str, arguments: &[&str]| {
        let setup = with(Setup::in_folder(server.folder()), secret).arg("verify").arg("--quarantine");
        let (status, stdout, stderr) = arguments.iter().fold(setup, |setup, argument| setup.arg(argument)).run();
        assert!(status.success(), "{stderr}");
        stdout
    };
    let mode =
        |path: &std::path::Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
    assert_eq!((mode(&folder) & 0o777, mode(&folder.join("key")) & 0o777), (0o700, 0o600), "the owner's alone");
    let told = verify("still-another-secret", &["--readmit"]);
    assert!(told.contains("no configured secret matches its proof") && told.contains("0 would verify"), "{told}");
    let count = kept().len();
    let told = verify("the-right-secret", &["--readmit"]);
    assert!(told.contains(&format!("{count} kept, {count} would verify now")), "{told}");
    assert!(kept().is_empty());
    assert_eq!(server.get("/messages/telegram:telegram:7:5").json()["text"], "a");
    assert_eq!(server.get("/messages/u1").json()["text"], "v");
    let events = |name: &str| server.get(&format!("/events?source={name}")).json()["data"].as_array().unwrap().len();
    assert_eq!((events("evolution"), events("bridge")), (1, 1));
}

/// Refused requests in a folder of three files; each is kept before the next one is sent.
struct Ring {
    folder: tempfile::TempDir,
}

impl Ring {
    fn setup(&self, setup: Setup) -> Setup {
        setup
            .env("POSTROOM_QUARANTINE_FOLDER", self.folder.path().display())
            .env("POSTROOM_QUARANTINE_REQUESTS_MAX", 3)
            .env("EVOLUTION_JWT_KEY", "mistyped-secret")
    }

    /// The complete bodies in the folder, in order.
    fn bodies(&self) -> Vec<String> {
        let paths = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let texts = paths.filter(|path| path.extension().is_some()).filter_map(|path| fs::read_to_string(path).ok());
        let values = texts.filter_map(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let decoded = values.filter_map(|kept| {
            let encoded = kept["body"].as_str()?.to_owned();
            let length = encoded.len() / 4 * 3 - encoded.bytes().rev().take_while(|byte| *byte == b'=').count();
            String::from_utf8(providers::encoding::Encoding::Base64.decode(encoded.as_bytes(), length)?).ok()
        });
        let mut bodies: Vec<String> = decoded.collect();
        bodies.sort();
        bodies
    }

    fn refuse(&self, server: &crate::harness::Server, body: &str) {
        let sender = Setup::new().env("EVOLUTION_JWT_KEY", "the-right-secret");
        wait_until("it is kept", || {
            assert_eq!(TestSource::of(&sender, "evolution").post(server, body.as_bytes(), "1").status, 401);
            // The instance has its own number; the rest may be redacted.
            let part = &body[..r#"{"event":"connection.update","instance":"i0""#.len()];
            self.bodies().iter().any(|kept| kept.starts_with(part)).then_some(())
        });
    }
}

#[test]
fn a_secret_in_a_refused_body_is_not_kept_however_its_name_is_escaped() {
    let ring = Ring { folder: tempfile::tempdir().unwrap() };
    let server = ring.setup(Setup::new()).start();
    for (number, name) in ["apikey", "api\\u006bey", "ApiKey"].into_iter().enumerate() {
        let body =
            format!(r#"{{"event":"connection.update","instance":"i{number}","{name}":"s3cret-instance-token"}}"#);
        ring.refuse(&server, &body);
    }
    let bodies = ring.bodies().concat();
    assert!(!bodies.contains("s3cret") && bodies.matches("[redacted]").count() == 3, "{bodies}");
    // After verification, neither the event nor the raw body contains it.
    let (server, source) = start();
    let body = br#"{"event":"connection.update","instance":"i","data":{"state":"open","api\u006bey":"s3cret-instance-token"}}"#;
    assert_eq!(source("evolution").post(&server, body, "1").status, 200);
    let events = server.get("/events?source=evolution").text();
    assert!(events.contains("[redacted]") && !events.contains("s3cret"), "{events}");
}

#[test]
fn after_a_restart_the_oldest_refused_request_is_overwritten_first() {
    let ring = Ring { folder: tempfile::tempdir().unwrap() };
    let body = |number: usize| format!(r#"{{"event":"connection.update","instance":"i{number}"}}"#);
    let server = ring.setup(Setup::new()).start();
    (0..4).for_each(|number| ring.refuse(&server, &body(number)));
    let before: Vec<String> = ring.bodies();
    assert_eq!(before, [body(1), body(2), body(3)]);
    let folder = server.folder();
    server.stop();
    let server = ring.setup(Setup::in_folder(folder)).start();
    ring.refuse(&server, &body(4));
    assert_eq!(ring.bodies(), [body(2), body(3), body(4)]);
}
