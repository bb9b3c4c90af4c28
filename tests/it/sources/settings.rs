//! Configuring sources: by environment variables, by a file, with
//! several secrets, and with secrets that change while the service runs.

use std::fs;
use std::path::PathBuf;

use super::{envelope, text_message};
use crate::harness::test_source::all_sources;
use crate::harness::{Server, Setup, TestSource, message, wait_until};

/// A configuration file next to the database, and the setup with its path.
pub fn with_file(setup: Setup, text: &str) -> (Setup, PathBuf) {
    let path = setup.path().join("postroom.toml");
    fs::write(&path, text).unwrap();
    let setup = setup.env("POSTROOM_CONFIG", path.display());
    (setup, path)
}

/// Why `check` refuses it.
fn complaint(setup: Setup) -> String {
    let (status, stdout, stderr) = setup.arg("check").run();
    assert_eq!(status.code(), Some(2), "{stdout}{stderr}");
    stderr
}

#[test]
fn at_least_one_source_must_have_a_secret_and_no_secret_may_be_empty() {
    assert!(complaint(Setup::new().without("WEBHOOK_SECRET")).contains("WEBHOOK_SECRET is not set"));
    let empty = Setup::new().env("WEBHOOK_SECRET", "").env("WHATSAPP_APP_SECRET", "x");
    assert!(complaint(empty).contains("WEBHOOK_SECRET must not be empty"));
    assert!(
        complaint(Setup::new().env("TELEGRAM_SECRET_TOKEN", "")).contains("TELEGRAM_SECRET_TOKEN must not be empty")
    );
    assert!(complaint(Setup::new().env("WAHA_HMAC_KEY_PREVIOUS", "x")).contains("WAHA_HMAC_KEY is not"));
    let twilio = complaint(Setup::new().env("TWILIO_AUTH_TOKEN", "x"));
    assert!(twilio.contains("PUBLIC_BASE_URL is not set") && twilio.contains("twilio"), "{twilio}");
    assert!(complaint(Setup::new().env("STANDARD_WEBHOOKS_SECRET", "whsec_!")).contains("is not base64"));
}

#[test]
fn without_its_secret_the_original_source_is_not_there() {
    let setup = || Setup::new().without("WEBHOOK_SECRET").env("WHATSAPP_APP_SECRET", "app-secret");
    let server = setup().start();
    assert_eq!(server.post(&crate::harness::body(&message("m1"))).status, 404);
    assert_eq!(server.get("/health/ready").status, 200);
    let source = TestSource::of(&setup(), "whatsapp");
    assert_eq!(source.post(&server, &envelope(&[text_message("a", "x")]), "1").status, 200);
}

#[test]
fn the_file_declares_sources_with_names_of_their_own() {
    let text = r#"
        [source.berlin]
        provider = "whatsapp"
        secret_env = ["BERLIN_NEW", "BERLIN_OLD"]
        verify_token_env = ["BERLIN_TOKEN", "BERLIN_TOKEN_OLD"]

        [source.bridge]
        provider = "evolution"
        secret_file = "bridge-secret"
        header = "X-Bridge"

        [source.crm]
        provider = "generic"
        secret_env = "CRM_SECRET"
        signature_header = "X-CRM-Signature"
        list_separator = ","
        label = "v1"
        algorithm = "hmac-sha512"
        encoding = "base64"
        timestamp_label = "t"
        tolerance_seconds = 60
        template = "v1:{timestamp}:{body}"
        fields = { messages = "/items", id = "/key", from = "/who", to = "/me", text = "/words/0", time = "/when", kind = "/sort" }
    "#;
    let (setup, _) = with_file(Setup::new(), text);
    let setup = setup.env("BERLIN_NEW", "n").env("BERLIN_OLD", "o").env("BERLIN_TOKEN", "t").env("CRM_SECRET", "c");
    let setup = setup.env("BERLIN_TOKEN_OLD", "before");
    fs::write(setup.path().join("bridge-secret"), "static\n").unwrap();
    let folder = setup.path().to_owned();
    let configuration = setup.path().join("postroom.toml");
    let server = setup.start();
    // The requests of the provider, from the same file, with paths relative to the program's folder.
    let sources = {
        let environment = [
            ("BERLIN_NEW", "n"),
            ("BERLIN_OLD", "o"),
            ("BERLIN_TOKEN", "t"),
            ("BERLIN_TOKEN_OLD", "before"),
            ("CRM_SECRET", "c"),
            ("WEBHOOK_SECRET", "w"),
        ];
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        let text = fs::read_to_string(&configuration)
            .unwrap()
            .replace("\"bridge-secret\"", &format!("{:?}", folder.join("bridge-secret")));
        fs::write(&configuration, text).unwrap();
        let inputs = server::config::Inputs::new(Default::default(), environment, Some(configuration)).unwrap();
        server::config::Config::load(&inputs).unwrap().sources
    };
    let post = |name: &str, body: &[u8]| {
        let source = sources.iter().find(|source| source.name == name).unwrap();
        let own = hyper::HeaderMap::new();
        let path = format!("/webhook/{name}");
        let request = providers::Request { headers: &own, body, base_url: None, target: &path };
        let headers = source.sign(&request, "1", crate::harness::test_source::now()).unwrap();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        server.client().request("POST", &path, &headers, body).unwrap()
    };
    assert_eq!(post("berlin", &envelope(&[text_message("a", "x")])).status, 200);
    assert_eq!(post("bridge", br#"{"event":"x","data":{}}"#).status, 200);
    let body = br#"{"items":[{"key":1,"who":"+49 151 1","me":"desk","words":["hi"],"when":1736935200,"sort":"text"},{"key":2}]}"#;
    assert_eq!(post("crm", body).status, 200);
    let found = server.get("/messages/generic:crm:1").json();
    assert_eq!(
        (found["from"].as_str(), found["to"].as_str(), found["text"].as_str()),
        (Some("+491511"), Some("alpha:desk"), Some("hi"))
    );
    assert_eq!(server.get("/events?source=crm").json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/messages/a").json()["details"]["source"], "berlin");
    for (token, answer) in [("t", 200), ("before", 200), ("other", 403), ("", 403)] {
        let question = format!("/webhook/berlin?hub.mode=subscribe&hub.challenge=7&hub.verify_token={token}");
        assert_eq!(server.get(&question).status, answer, "{token}");
    }
    let empty = Setup::new().env("WHATSAPP_APP_SECRET", "s").env("WHATSAPP_VERIFY_TOKEN", "");
    assert!(complaint(empty).contains("WHATSAPP_VERIFY_TOKEN must not be empty"));
}

#[test]
fn a_further_source_of_the_original_kind_keeps_its_ids_apart_and_its_422() {
    let (setup, _) = with_file(Setup::new(), "[source.second]\nprovider = \"postroom\"\nsecret_env = \"SECOND\"");
    let server = setup.env("SECOND", crate::harness::SECRET).start();
    let post = |path: &str, body: &[u8]| {
        let signature = crate::harness::sign(body);
        server.client().request("POST", path, &[("X-Signature", &signature)], body).unwrap().status
    };
    let body = crate::harness::body(&message("m1"));
    assert_eq!(
        (post("/webhook", &body), post("/webhook/second", &body), post("/webhook/second", b"{}")),
        (200, 200, 422)
    );
    assert_eq!(post("/webhook/postroom", &body), 404, "the original source has no name");
    let ids = server.get("/messages").json();
    let ids: Vec<_> = ids["data"].as_array().unwrap().iter().map(|one| one["message_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["m1", "postroom:second:m1"]);
}

#[test]
fn what_the_file_gets_wrong_is_named() {
    let ask = |text: &str| {
        let (setup, _) = with_file(Setup::new().env("S", "secret"), text);
        complaint(setup)
    };
    let cases = [
        ("[source.a]\nsecret_env = 'S'", "source.a.provider is not set"),
        ("[source.a]\nprovider = 'whatsap'\nsecret_env = 'S'", "did you mean whatsapp?"),
        ("[source.a]\nprovider = 'whatsapp'", "secret_file must name a secret"),
        ("[source.a]\nprovider = 'whatsapp'\nsecret_env = 'NONE'", "names NONE, which is not set"),
        ("[source.a]\nprovider = 'whatsapp'\nsecret_file = '/nowhere'", "cannot be read"),
        (
            "[source.a]\nprovider = 'whatsapp'\nsecret = 'x'",
            "source.a.secret is not a setting of postroom; did you mean secret_",
        ),
        (
            "[source.a]\nprovider = 'whatsapp'\nsecret_env = 'S'\nverify_token_evn = 'S'",
            "did you mean verify_token_env?",
        ),
        ("[source.A]\nprovider = 'whatsapp'\nsecret_env = 'S'", "lower-case letters"),
        ("[source.postroom]\nprovider = 'whatsapp'\nsecret_env = 'S'", "a unique name"),
        ("source = 1", "not a setting"),
        ("[source.a]\nprovider = 'generic'\nsecret_env = 'S'", "signature_header is not set"),
        (
            "[source.a]\nprovider = 'generic'\nsecret_env = 'S'\nsignature_header = 'x'\ntemplate = '{timestamp}'",
            "must contain the body",
        ),
        (
            "[source.a]\nprovider = 'generic'\nsecret_env = 'S'\nsignature_header = 'x'\ntemplate = '{bdy}'",
            "no placeholder {bdy}",
        ),
        (
            "[source.a]\nprovider = 'generic'\nsecret_env = 'S'\nsignature_header = 'x'\ntimestamp_header = 't'",
            "must contain {timestamp}",
        ),
        (
            "[source.a]\nprovider = 'generic'\nsecret_env = 'S'\nsignature_header = 'x'\nfields = { fromm = '/a' }",
            "did you mean from?",
        ),
        (
            "[source.a]\nprovider = 'generic'\nsecret_env = 'S'\nsignature_header = 'x'\nfields = { from = 'a' }",
            "not a JSON pointer",
        ),
        (
            "[source.a]\nprovider = 'twilio'\nsecret_env = 'S'\nbase_url = 'hooks.example.com'",
            "must be http:// or https://",
        ),
        ("[source.a]\nprovider = 'twilio'\nsecret_env = 'S'", "PUBLIC_BASE_URL is not set"),
    ];
    for (text, expected) in cases {
        let told = ask(text);
        assert!(told.contains(expected), "{text}\n{told}");
        assert!(!told.contains("secret\""), "no secret in clear: {told}");
    }
}

#[test]
fn check_tells_what_each_source_expects_and_no_secret() {
    let (status, stdout, _) = all_sources(Setup::new()).arg("check").run();
    assert!(status.success());
    for told in [
        "https://hooks.example.com/webhook/whatsapp",
        "x-hub-signature-256: sha256=<HMAC-SHA256 of {body}, in lower-case hexadecimal>",
        "WHATSAPP_APP_SECRET",
        "webhook-signature: v1,<HMAC-SHA256 of {id}.{timestamp}.{body}, in base64>",
        "stripe-signature: t=<seconds since 1970>,v1=<HMAC-SHA256 of {timestamp}.{body}, in lower-case hexadecimal>",
        "in lower-case hexadecimal>; x-slack-request-timestamp: <seconds since 1970>",
        "x-twilio-signature: <HMAC-SHA1",
        "x-plivo-signature-ma-v3 (or -v3): ",
        "the body is not signed",
        "verify token the value of WHATSAPP_VERIFY_TOKEN",
    ] {
        assert!(stdout.contains(told), "{told}\n{stdout}");
    }
    for secret in ["app-secret", "verify me", "telegram-token", "MfKQ9r8", "my-secret-key", "jwt-key", "testsecret"] {
        assert!(!stdout.contains(secret), "{secret}");
    }
}

fn uses(server: &Server, secret: &str) -> Option<f64> {
    server.metric(&format!(r#"postroom_secret_uses_total{{source="postroom",secret="{secret}"}}"#))
}

#[test]
fn an_old_secret_stays_good_until_it_is_taken_away() {
    let setup = Setup::new().env("WEBHOOK_SECRET", "new").env("WEBHOOK_SECRET_PREVIOUS", crate::harness::SECRET);
    let server = setup.start();
    server.store(&message("m1"));
    assert_eq!((uses(&server, "WEBHOOK_SECRET"), uses(&server, "WEBHOOK_SECRET_PREVIOUS")), (Some(0.0), Some(1.0)));
    let sample = r#"postroom_secret_last_used_timestamp_seconds{source="postroom",secret="WEBHOOK_SECRET_PREVIOUS"}"#;
    assert!(server.metric(sample).unwrap() > 1.7e9);
    let stray = Setup::new().without("WEBHOOK_SECRET").env("WAHA_HMAC_KEY", "x").env("WEBHOOK_SECRET_PREVIOUS", "y");
    assert!(complaint(stray).contains("WEBHOOK_SECRET_PREVIOUS"));
}

#[test]
fn secrets_in_files_are_exchanged_without_a_restart() {
    let setup = Setup::new().without("WEBHOOK_SECRET");
    let path = setup.path().join("secret");
    fs::write(&path, "old").unwrap();
    let server = setup.env("WEBHOOK_SECRET_FILE", path.display()).start();
    let post = |server: &Server| server.post(&crate::harness::body(&message("m1"))).status;
    assert_eq!(post(&server), 401);
    fs::write(&path, crate::harness::SECRET).unwrap();
    server.signal("HUP");
    wait_until("the new secret is read", || (post(&server) == 200).then_some(()));
    server.wait_for_line(|line| line["message"] == "reloaded the settings");
    // An invalid file changes nothing.
    fs::write(&path, "").unwrap();
    server.signal("HUP");
    let line = server.wait_for_line(|line| {
        line["level"] == "ERROR" && line["message"].as_str().unwrap().contains("previous ones stay in use")
    });
    assert!(line["error"].as_str().unwrap().contains("must not be empty"), "{line}");
    assert_eq!(post(&server), 200);
    assert!(server.stop().0.success(), "a hang-up is no end");
}

/// A server with a generic source, and its provider with the same settings.
fn generic(text: &str) -> (Server, TestSource) {
    let write =
        |setup: Setup| with_file(setup, &format!("[source.own]\nprovider = 'generic'\nsecret_env = 'S'\n{text}")).0;
    let setup = || write(Setup::new().env("S", "secret"));
    let source = TestSource::of(&setup(), "own");
    (setup().start(), source)
}

#[test]
fn a_token_may_vouch_for_the_body_at_any_source() {
    let bearer = "signature_header = 'Authorization'\nprefix = 'Bearer '\nalgorithm = 'jwt-hs256'\n";
    let (server, source) = generic(&format!("{bearer}body_claim = 'digest'"));
    let headers = source.headers(b"{}", "1", crate::harness::test_source::now());
    assert_eq!(source.post_with(&server, b"{}", &headers).status, 200);
    assert_eq!(source.post_with(&server, b"{ }", &headers).status, 401, "the digest is of another body");
    let cautions = |server: &Server| {
        server.lines().iter().filter(|line| line["level"] == "WARNING" && line["source"] == "own").count()
    };
    assert_eq!(cautions(&server), 0);

    let (server, source) = generic(bearer);
    let headers = source.headers(b"{}", "1", crate::harness::test_source::now());
    assert_eq!(source.post_with(&server, b"{ }", &headers).status, 200, "nothing vouches for the body");
    assert_eq!(cautions(&server), 1, "and that is said aloud");
    let forged = TestSource::of(
        &with_file(
            Setup::new().env("S", "other"),
            &format!("[source.own]\nprovider = 'generic'\nsecret_env = 'S'\n{bearer}"),
        )
        .0,
        "own",
    );
    assert_eq!(forged.post(&server, b"{}", "1").status, 401);
    let told = complaint(
        with_file(
            Setup::new().env("S", "s"),
            "[source.a]\nprovider = 'generic'\nsecret_env = 'S'\nsignature_header = 'x'\nbody_claim = 'y'",
        )
        .0,
    );
    assert!(told.contains("needs algorithm = \"jwt-hs256\""), "{told}");
}

#[test]
fn several_labels_may_count() {
    let (server, source) = generic("signature_header = 'x-own'\nlist_separator = ','\nlabel = ['v1', 'v2']");
    let good = source.headers(b"{}", "1", crate::harness::test_source::now());
    let signature = good["x-own"].to_str().unwrap().strip_prefix("v1=").unwrap().to_owned();
    let wrong = "0".repeat(64);
    for (value, expected) in [
        (format!("v1={signature}"), 200),
        (format!("v2={signature}"), 200),
        (format!("v1={wrong},v2={signature}"), 200),
        (format!("v3={signature}"), 401),
        (format!("v3={signature},v2={wrong}"), 401),
        (signature.clone(), 401),
    ] {
        let mut headers = good.clone();
        headers.insert("x-own", value.parse().unwrap());
        assert_eq!(source.post_with(&server, b"{}", &headers).status, expected, "{value}");
    }
}

#[test]
fn standard_webhooks_may_have_headers_of_another_name() {
    let text = "[source.vendor]\nprovider = 'standard'\nsecret_env = 'S'\nid_header = 'X-Vendor-Id'\n\
                timestamp_header = 'X-Vendor-Timestamp'\nsignature_header = 'X-Vendor-Signature'";
    let setup = || with_file(Setup::new().env("S", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), text).0;
    let (server, source) = (setup().start(), TestSource::of(&setup(), "vendor"));
    let body = br#"{"type":"message","data":{"from":"+14155550100","to":"+14155550101","text":"x"}}"#;
    let headers = source.headers(body, "msg_1", crate::harness::test_source::now());
    assert!(headers.contains_key("x-vendor-signature") && !headers.contains_key("webhook-id"));
    assert_eq!(source.post_with(&server, body, &headers).status, 200);
    assert_eq!(server.get("/messages/standard:vendor:msg_1").status, 200, "by the id of the delivery");
    let mut other = headers.clone();
    other.insert("webhook-id", "msg_2".parse().unwrap());
    assert_eq!(source.post_with(&server, body, &other).status, 200, "which only its own header names");
    assert_eq!(server.rows(), 1);
}

#[test]
fn an_id_that_nobody_signed_makes_no_second_delivery() {
    let setup = || Setup::new().env("STANDARD_WEBHOOKS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let (server, source) = (setup().start(), TestSource::of(&setup(), "standard"));
    let body = br#"{"type":"invoice.paid","data":{}}"#;
    let signed = source.headers(body, "msg_1", crate::harness::test_source::now());
    let mut svix = hyper::HeaderMap::new();
    for name in ["id", "timestamp", "signature"] {
        let value = signed[&format!("webhook-{name}")].clone();
        svix.insert(hyper::header::HeaderName::try_from(format!("svix-{name}")).unwrap(), value);
    }
    assert_eq!(source.post_with(&server, body, &svix).status, 200);
    assert_eq!(source.post_with(&server, body, &signed).status, 200, "the same delivery in the other family");
    svix.insert("webhook-id", "msg_2".parse().unwrap());
    assert_eq!(source.post_with(&server, body, &svix).status, 401);
    assert_eq!(server.get("/events?source=standard").json()["data"].as_array().unwrap().len(), 1);
}

#[test]
fn a_generic_source_that_is_opened_by_a_static_secret_says_so_loudly() {
    let text = "[source.a]\nprovider = 'generic'\nsecret_env = 'S'\nsignature_header = 'x-token'\nalgorithm = 'static'";
    let (setup, _) = with_file(Setup::new().env("S", "secret"), text);
    assert!(setup.arg("check").run().1.contains("caution      the body is not signed"));
    let (setup, _) = with_file(Setup::new().env("S", "secret"), text);
    let server = setup.start();
    server.wait_for_line(|line| line["level"] == "WARNING" && line["source"] == "a");
}

#[test]
fn a_static_header_holds_the_secret_and_nothing_that_the_provider_puts_around_a_signature() {
    let text = r#"
        [source.dialog]
        provider = "360dialog"
        secret_env = "DIALOG360_SECRET"
        algorithm = "static"
        signature_header = "X-My-Header"

        [source.slack]
        provider = "slack"
        secret_env = "DIALOG360_SECRET"
        algorithm = "static"
        signature_header = "Authorization"
        prefix = "Bearer "
    "#;
    let (setup, _) = with_file(Setup::new().env("DIALOG360_SECRET", "s3cret"), text);
    let server = setup.start();
    let body = envelope(&[text_message("a", "x")]);
    let post = |source: &str, header: (&str, &str)| {
        server.client().request("POST", &format!("/webhook/{source}"), &[header], body.as_ref()).unwrap().status
    };
    assert_eq!(post("dialog", ("X-My-Header", "s3cret")), 200);
    assert_eq!(post("dialog", ("X-My-Header", "sha256=s3cret")), 401);
    assert_eq!(post("slack", ("Authorization", "Bearer s3cret")), 200);
    assert_eq!(post("slack", ("Authorization", "v0=s3cret")), 401);
    assert_eq!(server.rows(), 1);
}
