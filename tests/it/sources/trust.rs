//! Authentication at the sources of providers: published vectors,
//! forgeries, and everything that lenient verifiers accept.

use std::collections::BTreeMap;

use domain::Moment;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use proptest::prelude::*;
use providers::{BadSignature, Request, SCHEMES, Source};
use server::config::{Config, Inputs};

use super::samples::samples;
use super::{envelope, start, text_message};
use crate::harness::test_source::{BASE_URL, now};
use crate::harness::{Setup, TestSource, sign};

const NOW: i64 = 1_795_168_800;

/// A source configured only by these environment variables.
fn source(environment: &[(&str, &str)]) -> Source {
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
    let inputs = Inputs::new(BTreeMap::new(), environment, None).unwrap();
    Config::load(&inputs).unwrap().sources.remove(0)
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn check(source: &Source, pairs: &[(&str, &str)], body: &[u8], url: (&str, &str), at: i64) -> Result<(), BadSignature> {
    let headers = headers(pairs);
    let request = Request { headers: &headers, body, base_url: Some(url.0), target: url.1 };
    source.verify(&request, body.to_vec().into(), Moment::from_microseconds(at * 1_000_000)).map(drop)
}

fn check_body(source: &Source, pairs: &[(&str, &str)], body: &[u8]) -> Result<(), BadSignature> {
    check(source, pairs, body, (BASE_URL, "/webhook/x"), NOW)
}

#[test]
fn meta_signs_the_bytes_as_they_are() {
    let whatsapp = source(&[("WHATSAPP_APP_SECRET", "It's a Secret to Everybody")]);
    // GitHub's documentation, "Validating webhook deliveries": the same scheme with a published secret, body and
    // signature.
    let (body, good) = (b"Hello, World!", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    let header = "X-Hub-Signature-256";
    assert_eq!(check_body(&whatsapp, &[(header, good)], body), Ok(()));
    assert_eq!(check_body(&whatsapp, &[], body), Err(BadSignature::MissingHeader));
    assert_eq!(check_body(&whatsapp, &[(header, good), (header, good)], body), Err(BadSignature::DuplicateHeader));
    assert_eq!(check_body(&whatsapp, &[("X-Hub-Signature", good)], body), Err(BadSignature::MissingHeader));
    assert_eq!(check_body(&whatsapp, &[(header, good)], b"Hello, World"), Err(BadSignature::WrongSecret));
    let upper = good.to_uppercase().replace("SHA256", "sha256");
    let junk = format!("{good}zz");
    let list = format!("{good},{good}");
    for bad in [&good[7..], &upper, &junk, &list, "sha256=", "sha1=757107ea", "é", ""] {
        assert_eq!(check_body(&whatsapp, &[(header, bad)], body), Err(BadSignature::Malformed), "{bad}");
    }
}

#[test]
fn twilio_signs_the_url_and_the_form() {
    let twilio = source(&[("TWILIO_AUTH_TOKEN", "12345"), ("PUBLIC_BASE_URL", "https://mycompany.com")]);
    // Twilio's documentation, "Security": the published example.
    let body = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let signature = ("X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    let url = ("https://mycompany.com", "/myapp.php?foo=1&bar=2");
    let verify = |pairs: &[(&str, &str)], body: &str, url| check(&twilio, pairs, body.as_bytes(), url, NOW);
    assert_eq!(verify(&[form, signature], body, url), Ok(()));
    let shuffled = "To=%2B18005551212&From=%2B14158675309&Digits=1234&Caller=%2B14158675309&CallSid=CA1234567890ABCDE";
    assert_eq!(verify(&[form, signature], shuffled, url), Ok(()), "the order of a form does not count");
    let charset = ("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8");
    assert_eq!(verify(&[charset, signature], body, url), Ok(()));
    let added = format!("{body}&More=1");
    assert_eq!(verify(&[form, signature], &added, url), Err(BadSignature::WrongSecret), "unknown parameters count");
    for other in ["/myapp.php?bar=2&foo=1", "/myapp.php", "/myapp.php?foo=1&bar=2&x"] {
        assert_eq!(verify(&[form, signature], body, (url.0, other)), Err(BadSignature::WrongSecret), "{other}");
    }
    assert_eq!(verify(&[signature], body, url), Err(BadSignature::WrongSecret), "a form that says it is none");
    for bad in ["RSOYDt4T1cUTdK1PDd93/VVr8B8", "RSOYDt4T1cUTdK1PDd93/VVr8B9=", "RSOYDt4T1cUTdK1PDd93_VVr8B8="] {
        let signature = ("X-Twilio-Signature", bad);
        assert_eq!(verify(&[form, signature], body, url), Err(BadSignature::Malformed), "{bad}");
    }
    let settings = ("X-Twilio-Webhooks-Signature-Settings", "key=k,algorithm=HMAC_SHA256");
    assert_eq!(
        verify(&[form, signature, settings], body, url),
        Err(BadSignature::WrongAlgorithm),
        "not the request's choice"
    );
}

#[test]
fn twilios_json_is_only_believed_by_the_digest_in_the_url() {
    let twilio = source(&[("TWILIO_AUTH_TOKEN", "12345"), ("PUBLIC_BASE_URL", BASE_URL)]);
    let signed = |target: &str, body: &[u8]| {
        let own = headers(&[("content-type", "application/json")]);
        let request = Request { headers: &own, body, base_url: Some(BASE_URL), target };
        let signed = twilio.sign(&request, "", now()).unwrap();
        let request = Request { headers: &signed, ..request };
        twilio.verify(&request, body.to_vec().into(), now()).map(drop)
    };
    let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(signed(&format!("/x?bodySHA256={digest}"), b"{}"), Ok(()));
    assert_eq!(signed(&format!("/x?bodySHA256={digest}"), b"{ }"), Err(BadSignature::BodyMismatch));
    assert_eq!(signed(&format!("/x?bodySHA256={digest}&bodySHA256=0"), b"{}"), Err(BadSignature::BodyMismatch));
    assert_eq!(signed("/x", b"{}"), Err(BadSignature::BodyMismatch), "nothing vouches for the body");
}

#[test]
fn standard_webhooks_and_svix_verify_alike_and_never_mixed() {
    let standard = source(&[("STANDARD_WEBHOOKS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]);
    // Svix's documentation and test suites: the published secret, id, time, body and signature.
    let (body, at) = (br#"{"test": 2432232314}"#, 1_614_265_330);
    let (id, good) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let verify = |pairs: &[(&str, &str)], at| check(&standard, pairs, body, (BASE_URL, "/"), at);
    let family = |prefix: &str, time: &str, signature: &str| {
        let parts = [("id", id), ("timestamp", time), ("signature", signature)];
        parts.map(|(name, value)| (format!("{prefix}-{name}"), value.to_owned()))
    };
    let ask = |prefix: &str, time: &str, signature: &str, at| {
        let pairs = family(prefix, time, signature);
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        verify(&pairs, at)
    };
    for prefix in ["webhook", "svix"] {
        for at in [at, at + 300, at - 300] {
            assert_eq!(ask(prefix, "1614265330", good, at), Ok(()), "{prefix} {at}");
        }
        assert_eq!(ask(prefix, "1614265330", good, at + 301), Err(BadSignature::StaleTimestamp));
        assert_eq!(ask(prefix, "1614265330", good, at - 301), Err(BadSignature::FutureTimestamp));
    }
    for time in ["1614265330.0", "+1614265330", "01614265330", "1614265330abc", "", "now"] {
        assert_eq!(ask("webhook", time, good, at), Err(BadSignature::MalformedTimestamp), "{time}");
    }
    let several = format!("v0,x v1,AAAA v1a,{} v1,{} {good}", "A".repeat(86) + "==", "A".repeat(43) + "=");
    assert_eq!(ask("webhook", "1614265330", &several, at), Ok(()), "any of a list");
    for bad in [&good[3..], "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "v1,", "v1", &good.replace(',', "=")] {
        assert_eq!(ask("webhook", "1614265330", bad, at), Err(BadSignature::Malformed), "{bad}");
    }
    let mixed = [("webhook-id", id), ("svix-timestamp", "1614265330"), ("svix-signature", good)];
    assert_eq!(verify(&mixed, at), Err(BadSignature::MissingHeader), "one family, whole");
    let other = [("webhook-id", "msg_x"), ("webhook-timestamp", "1614265330"), ("webhook-signature", good)];
    assert_eq!(verify(&other, at), Err(BadSignature::WrongSecret), "the id is signed");
}

#[test]
fn waha_signs_with_sha512() {
    let waha = source(&[("WAHA_HMAC_KEY", "my-secret-key")]);
    // WAHA's documentation, "Webhooks": the published key, body and signature.
    let body = br#"{"event":"message","session":"default","engine":"WEBJS"}"#;
    let good = "208f8a55dde9e05519e898b10b89bf0d0b3b0fdf11fdbf09b6b90476301b98d8097c462b2b17a6ce93b6b47a136cf2e78a33a63f6752c2c1631777076153fa89";
    let sha512 = ("X-Webhook-Hmac-Algorithm", "sha512");
    assert_eq!(check_body(&waha, &[("X-Webhook-Hmac", good), sha512], body), Ok(()));
    assert_eq!(check_body(&waha, &[("X-Webhook-Hmac", good)], body), Ok(()));
    let sha256 = ("X-Webhook-Hmac-Algorithm", "sha256");
    assert_eq!(check_body(&waha, &[("X-Webhook-Hmac", good), sha256], body), Err(BadSignature::WrongAlgorithm));
    assert_eq!(check_body(&waha, &[("X-Webhook-Hmac", &good[..64]), sha512], body), Err(BadSignature::Malformed));
}

/// Requests that the providers' own libraries signed, or that
/// their documentation contains; see `made_with` in the file.
#[test]
fn what_the_official_libraries_sign_is_believed_and_nothing_else() {
    let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("testdata/vectors.json");
    let vectors: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(vectors.len() > 25);
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let scheme = providers::Scheme::find(text("provider")).unwrap();
        let key = |secret: &str| scheme.secret.read("x", &domain::Secret::new(secret).unwrap()).unwrap();
        let id = vector["key_id"].as_str().map(str::to_owned);
        let sender = |secret: &str| {
            let mut source = Source::new("x", scheme, vec![key(secret)]);
            source.keys[0].id = id.clone();
            source.options.shared_keys = id.is_some();
            source
        };
        let pairs = vector["headers"].as_object().unwrap().iter();
        let pairs: Vec<_> = pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let (url, at, body) = ((text("base_url"), text("target")), vector["at"].as_i64().unwrap(), text("body"));
        let name = format!("{} {}", text("provider"), text("made_with"));
        let source = sender(text("secret"));
        assert_eq!(check(&source, &pairs, body.as_bytes(), url, at), Ok(()), "{name}");
        if vector["unsigned_body"] != true {
            let forged = format!("{body}&forged=1");
            assert!(check(&source, &pairs, forged.as_bytes(), url, at).is_err(), "{name}: another body");
        }
        if source.needs_url() {
            assert!(check(&source, &pairs, body.as_bytes(), ("https://other.example", url.1), at).is_err(), "{name}");
            let unknown = Request { headers: &headers(&pairs), body: body.as_bytes(), base_url: None, target: url.1 };
            let verdict = source.verify(&unknown, body.to_owned().into(), Moment::from_microseconds(at * 1_000_000));
            assert_eq!(verdict.map(drop), Err(BadSignature::UnknownUrl), "{name}");
        }
        if scheme.secret == providers::SecretForm::Text {
            let wrong = sender(&format!("{}x", text("secret")));
            assert_eq!(check(&wrong, &pairs, body.as_bytes(), url, at), Err(BadSignature::WrongSecret), "{name}");
        }
    }
}

#[test]
fn plivos_accounts_sign_under_two_names_and_either_will_do() {
    let sender = TestSource::of(&crate::harness::test_source::all_sources(Setup::new()), "plivo");
    let body = b"From=14155550100&To=14155238886&Text=x&MessageUUID=u-1";
    let signed = sender.headers(body, "12345", now());
    let right = signed["x-plivo-signature-ma-v3"].to_str().unwrap();
    let wrong = &format!("{}=", "A".repeat(43));
    let ask = |pairs: &[(&str, &str)]| {
        let common = [("content-type", "application/x-www-form-urlencoded"), ("x-plivo-signature-v3-nonce", "12345")];
        let pairs: Vec<_> = common.iter().chain(pairs).copied().collect();
        check(&sender.source, &pairs, body, (BASE_URL, &sender.path), NOW)
    };
    let (main, own) = ("x-plivo-signature-ma-v3", "x-plivo-signature-v3");
    assert_eq!(ask(&[(main, right)]), Ok(()));
    assert_eq!(ask(&[(own, right)]), Ok(()));
    assert_eq!(ask(&[(main, right), (own, wrong)]), Ok(()), "as incoming messages come");
    assert_eq!(ask(&[(main, wrong), (own, wrong)]), Err(BadSignature::WrongSecret));
    assert_eq!(ask(&[(main, right), (main, right)]), Err(BadSignature::DuplicateHeader));
    assert_eq!(ask(&[("x-plivo-signature-v2", right)]), Err(BadSignature::MissingHeader), "it signs no body");
}

#[test]
fn static_secrets_are_compared_whole() {
    let telegram = source(&[("TELEGRAM_SECRET_TOKEN", "tokeN_-1")]);
    let header = "X-Telegram-Bot-Api-Secret-Token";
    assert_eq!(check_body(&telegram, &[(header, "tokeN_-1")], b"{}"), Ok(()));
    for bad in ["tokeN_-", "tokeN_-11", "token_-1", "", "é"] {
        assert_eq!(check_body(&telegram, &[(header, bad)], b"{}"), Err(BadSignature::WrongSecret), "{bad}");
    }
    assert_eq!(check_body(&telegram, &[], b"{}"), Err(BadSignature::MissingHeader));
}

#[test]
fn the_handshake_wants_the_right_token_and_says_the_challenge_back() {
    let (server, _) = start();
    let ask = |query: &str| {
        let reply = server.get(&format!("/webhook/whatsapp?{query}"));
        (reply.status, reply.text())
    };
    let good = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=verify+me";
    let reply = server.get(&format!("/webhook/whatsapp?{good}"));
    assert_eq!((reply.status, reply.text().as_str()), (200, "1158201444"));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let opaque = good.replace("1158201444", "%3Cb%3E+x");
    assert_eq!(ask(&opaque), (200, "<b> x".to_owned()));
    let refusals = [
        (good.replace("subscribe", "unsubscribe"), "hub.mode must be subscribe"),
        (good.replace("hub.mode=subscribe&", ""), "hub.mode is missing"),
        (format!("{good}&hub.mode=subscribe"), "hub.mode occurs more than once"),
        (good.replace("hub.", "hub_"), "hub.mode is missing"),
        (String::new(), "hub.mode is missing"),
        (good.replace("verify+me", "other"), "hub.verify_token is not the verify token of this source"),
        (good.replace("verify+me", ""), "hub.verify_token is not the verify token of this source"),
        (good.replace("verify+me", "verify+me+"), "hub.verify_token is not the verify token of this source"),
        (good.replace("&hub.verify_token=verify+me", ""), "hub.verify_token is missing"),
        (format!("{good}&hub.verify_token=other"), "hub.verify_token occurs more than once"),
        (good.replace("hub.challenge=1158201444&", ""), "hub.challenge is missing"),
        (format!("{good}&hub.challenge=1"), "hub.challenge occurs more than once"),
    ];
    for (query, detail) in &refusals {
        assert_eq!(ask(query), (403, format!(r#"{{"detail":"{detail}"}}"#)), "{query}");
    }
    let count = |reason: &str| server.metric(&format!(r#"postroom_refused_total{{reason="{reason}"}}"#));
    assert_eq!((count("wrong_verify_token"), count("malformed_handshake")), (Some(5.0), Some(7.0)));
    assert!(server.lines().iter().all(|line| !line.to_string().contains("verify me")), "the token stays out");
    assert_eq!(server.get("/webhook/twilio").status, 405, "only who shakes hands asks by GET");
    assert_eq!(server.get("/webhook/nobody").status, 404);
}

#[test]
fn a_handshake_where_no_token_is_set_says_so_to_the_operator() {
    let server = Setup::new().env("WHATSAPP_APP_SECRET", "app-secret").start();
    let reply = server.get("/webhook/whatsapp?hub.mode=subscribe&hub.challenge=1&hub.verify_token=x");
    assert_eq!((reply.status, reply.text().as_str()), (403, r#"{"detail":"no verify token is set for this source"}"#));
    let line = server.wait_for_line(|line| line["status"] == 403);
    assert_eq!((line["reason"].as_str(), line["level"].as_str()), (Some("wrong_verify_token"), Some("ERROR")));
    assert!(line["error"].as_str().unwrap().contains("WHATSAPP_VERIFY_TOKEN"), "{line}");
}

#[test]
fn answers_are_what_each_provider_wants_to_hear() {
    let (server, sender) = start();
    let telegram =
        sender("telegram").post(&server, br#"{"update_id":1,"message":{"message_id":1,"chat":{"id":5}}}"#, "1");
    assert_eq!((telegram.status, telegram.text().as_str()), (200, ""), "a body would be a command");
    let twilio = sender("twilio").post(&server, b"MessageSid=SM1&AccountSid=AC1&From=%2B1&To=%2B2&Body=x", "1");
    assert_eq!(twilio.header("content-type"), Some("text/xml; charset=utf-8"));
    assert_eq!(twilio.text(), r#"<?xml version="1.0" encoding="UTF-8"?><Response></Response>"#);
    let plivo = sender("plivo").post(&server, b"MessageUUID=u&From=14155550100&To=14155550101&Text=x", "1");
    assert_eq!((plivo.header("content-type"), plivo.text()), (Some("text/xml; charset=utf-8"), twilio.text()));
    let unsigned = |name: &str| server.client().request("POST", &format!("/webhook/{name}"), &[], b"{}").unwrap();
    assert_eq!((unsigned("twilio").status, unsigned("whatsapp").status), (403, 401));
    assert_eq!(unsigned("twilio").text(), r#"{"detail":"invalid signature"}"#, "and not why");
    assert_eq!(unsigned("evolution").status, 401);
    let behind = server.client().request("POST", "/webhook/evolution/messages-upsert", &[], b"{}").unwrap();
    assert_eq!(behind.status, 401, "the bridge appends names of events");
    let nowhere = server.client().request("POST", "/webhook/whatsapp/messages", &[], b"{}").unwrap();
    assert_eq!(nowhere.status, 404);
}

#[test]
fn nothing_forged_is_stored_and_each_reason_is_counted() {
    let (server, sender) = start();
    let (sender, body) = (sender("whatsapp"), envelope(&[text_message("a", "x")]));
    let good = sender.headers(&body, "1", now());
    let mut forged = body.clone();
    forged[body.len() / 2] ^= 1;
    assert_eq!(sender.post_with(&server, &forged, &good).status, 401);
    assert_eq!(sender.post_with(&server, &body, &HeaderMap::new()).status, 401);
    let mut twice = good.clone();
    twice.append("x-hub-signature-256", good["x-hub-signature-256"].clone());
    assert_eq!(sender.post_with(&server, &body, &twice).status, 401);
    let original = sign(&body);
    let mut other = good.clone();
    other.insert("x-hub-signature-256", HeaderValue::try_from(format!("sha256={original}")).unwrap());
    assert_eq!(sender.post_with(&server, &body, &other).status, 401, "another source's secret");
    assert_eq!(server.rows(), 0);
    for (reason, count) in [("wrong_secret", 2.0), ("missing_header", 1.0), ("duplicate_header", 1.0)] {
        let sample = format!(r#"postroom_refused_total{{reason="{reason}"}}"#);
        assert_eq!(server.metric(&sample), Some(count), "{reason}");
    }
    let line = server.wait_for_line(|line| line["reason"] == "duplicate_header");
    assert_eq!((line["status"].as_u64(), line["path"].as_str()), (Some(401), Some("/webhook/whatsapp")));
    let events: i64 = server.count("postroom_events");
    assert_eq!(events, 0);
}

#[test]
fn the_token_in_evolutions_bodies_is_not_kept() {
    let (server, sender) = start();
    let (_, body) = samples("evolution").into_iter().find(|(name, _)| name == "text.json").unwrap();
    assert!(String::from_utf8_lossy(&body).contains("s3cret-instance-token"));
    assert_eq!(sender("evolution").post(&server, &body, "1").status, 200);
    let raw = server.get("/messages/EVO0001?raw=1").text();
    assert!(raw.contains(r#""apikey": "[redacted]""#) && !raw.contains("s3cret-instance-token"), "{raw}");
    assert!(!server.get("/messages/EVO0001").text().contains("s3cret"));
}

#[test]
fn large_bodies_are_taken_up_to_the_sources_own_limit() {
    let (server, sender) = start();
    let sender = sender("whatsapp");
    let body = envelope(&[text_message("large", &"x".repeat(3 << 20))]);
    assert_eq!(sender.post(&server, &body, "1").status, 200);
    let text: String = server.get("/messages/large").json()["text"].as_str().unwrap().to_owned();
    assert_eq!(text.len(), 3 << 20, "the whole text is kept");
    let body = vec![b' '; (4 << 20) + 1];
    assert_eq!(sender.post(&server, &body, "1").status, 413);
    assert_eq!(server.post(&vec![b' '; (1 << 20) + 1]).status, 413, "the original source keeps its own");
}

#[test]
fn forwarded_hosts_are_only_believed_from_a_proxy_that_is_trusted() {
    let body = b"MessageSid=SM1&AccountSid=AC1&From=%2B1&To=%2B2&Body=x";
    let ask = |setup: Setup, extra: &[(&str, &str)]| {
        let sender = crate::harness::TestSource::of(&crate::harness::test_source::all_sources(Setup::new()), "twilio");
        let mut headers = sender.headers(body, "1", now());
        for (name, value) in extra {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        sender.post_with(&setup.start(), body, &headers).status
    };
    let setup =
        |proxies: &str| Setup::new().env("TWILIO_AUTH_TOKEN", "12345").env("POSTROOM_SERVER_TRUSTED_PROXIES", proxies);
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "hooks.example.com")];
    assert_eq!(ask(setup("127.0.0.0/8"), &forwarded), 200);
    assert_eq!(ask(setup("10.0.0.0/8"), &forwarded), 403, "anybody could say so");
    assert_eq!(ask(setup("127.0.0.1"), &forwarded[1..]), 403);
    let appended = |name: &'static str, value: &'static str| {
        let other = *forwarded.iter().find(|(other, _)| *other != name).unwrap();
        ask(setup("127.0.0.1"), &[other, (name, value)])
    };
    for claimed in ["hooks.example.com, inner", "evil.example, hooks.example.com", "hooks.example.com,"] {
        assert_eq!(appended("x-forwarded-host", claimed), 403, "who says which is the proxy's? {claimed}");
    }
    assert_eq!(appended("x-forwarded-host", "hooks.example.com, hooks.example.com"), 200);
    assert_eq!(appended("x-forwarded-proto", "https, http"), 200, "the outermost proxy's is the first");
    assert_eq!(ask(setup("127.0.0.1"), &[forwarded[0], forwarded[1], forwarded[1]]), 403, "two lines");
    let fixed = setup("127.0.0.1").env("PUBLIC_BASE_URL", "https://other.example");
    assert_eq!(ask(fixed, &forwarded), 403, "what the operator says goes before");
}

/// A source of every kind whose signature covers the body, with its provider, and a sample of each.
fn signed_samples() -> Vec<(TestSource, Source, Vec<u8>)> {
    let setup = crate::harness::test_source::all_sources(Setup::new());
    let kinds = SCHEMES.iter().map(|scheme| scheme.kind);
    let signed = kinds.filter(|kind| !["postroom", "telegram", "evolution"].contains(kind));
    signed
        .map(|kind| {
            let source = setup.config().sources.into_iter().find(|source| source.name == kind).unwrap();
            (TestSource::of(&setup, kind), source, samples(kind).swap_remove(0).1)
        })
        .collect()
}

/// Kinds whose authentication contains a time.
const DATED: [&str; 7] = ["standard", "slack", "stripe", "telnyx", "bird", "vonage", "messagebird"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_single_flipped_bit_anywhere_is_refused(at in any::<prop::sample::Index>(), bit in 0..8u8, in_body in any::<bool>()) {
        let now = Moment::from_microseconds(NOW * 1_000_000);
        for (sender, source, body) in signed_samples() {
            let signed = sender.headers(&body, "msg_1", now);
            let verify = |headers: &HeaderMap, body: &[u8]| {
                let request = Request { headers, body, base_url: Some(BASE_URL), target: &sender.path };
                source.verify(&request, body.to_vec().into(), now).map(drop)
            };
            prop_assert_eq!(verify(&signed, &body), Ok(()), "{}", source.name);
            if in_body {
                let mut forged = body.clone();
                forged[at.index(body.len())] ^= 1 << bit;
                // A form has several encodings; only its content matters.
                let is_form = signed[CONTENT_TYPE] == "application/x-www-form-urlencoded";
                let says_the_same = is_form && form(&forged) == form(&body);
                prop_assert!(says_the_same || verify(&signed, &forged).is_err(), "{}", source.name);
                continue;
            }
            // Signature, id, time, nonce: each header of the authentication.
            for name in signed.keys().filter(|name| *name != CONTENT_TYPE) {
                let mut value = signed[name].as_bytes().to_vec();
                let place = at.index(value.len());
                value[place] ^= 1 << bit;
                // The scheme before a token is case-insensitive.
                    let same_word = value[..value.len().min(7)].eq_ignore_ascii_case(b"Bearer ");
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                if same_word && place < 7 {
                    continue;
                }
                let mut forged = signed.clone();
                forged.insert(name.clone(), value);
                prop_assert!(verify(&forged, &body).is_err(), "{}: {name}", source.name);
            }
        }
    }

    #[test]
    fn what_was_signed_long_ago_or_for_later_is_refused(seconds in 0..800i64, later in any::<bool>()) {
        let away = if later { seconds } else { -seconds };
        for (sender, source, body) in signed_samples() {
            let signed = sender.headers(&body, "msg_1", Moment::from_microseconds(NOW * 1_000_000));
            let request = Request { headers: &signed, body: &body, base_url: Some(BASE_URL), target: &sender.path };
            let now = Moment::from_microseconds((NOW + away) * 1_000_000);
            let verdict = source.verify(&request, body.clone().into(), now).map(drop);
            let kind = source.scheme.kind;
            // MessageBird's token is valid from one second before its creation to one minute after it.
            let most = match (kind, later) {
                ("messagebird", true) => 360,
                ("messagebird", false) => 301,
                _ => 300,
            };
            let expected = match DATED.contains(&kind) && seconds > most {
                false => Ok(()),
                true if later => Err(BadSignature::StaleTimestamp),
                true => Err(BadSignature::FutureTimestamp),
            };
            prop_assert_eq!(verdict, expected, "{} {}", kind, away);
        }
    }
}

fn form(body: &[u8]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = form_urlencoded::parse(body).into_owned().collect();
    pairs.sort();
    pairs
}
