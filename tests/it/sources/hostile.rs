//! Repeated bad input of every kind: each has its response and its
//! metric, memory stays bounded, and no stored message is lost.

use super::{envelope, start, text_message};
use crate::harness::test_source::now;
use crate::harness::{Server, wait_until};
use domain::Moment;

/// Allowed growth of a process after the first rounds: caches fill, and the allocator keeps some memory.
const GROWTH_BYTES_MAX: f64 = 64.0 * 1024.0 * 1024.0;

fn refused(server: &Server, reason: &str) -> f64 {
    server.metric(&format!(r#"postroom_refused_total{{reason="{reason}"}}"#)).unwrap()
}

#[test]
fn bad_input_has_its_answer_and_its_metric_and_fills_no_memory() {
    let (server, source) = start();
    let (whatsapp, standard) = (source("whatsapp"), source("standard"));
    let good = envelope(&[text_message("kept", "as it was")]);
    assert_eq!(whatsapp.post(&server, &good, "1").status, 200);
    let other = envelope(&[text_message("forged", "x")]);
    let long_ago = Moment::from_microseconds(1_736_935_200_000_000);
    let hostile = [
        "[".repeat(3 << 20).into_bytes(),
        format!("{}{}", r#"{"entry":"#.repeat(100_000), "}".repeat(100_000)).into_bytes(),
        format!(r#"{{"entry":[{}{{}}]}}"#, r#"{"changes":[{"field":"x","value":{}}]},"#.repeat(50_000)).into_bytes(),
        [&good[..good.len() - 9], b"\xff\xfe\x00"].concat(),
        good[..good.len() / 2].to_vec(),
    ];
    let round = || {
        // Forged: signed for another body. Stale: signed long ago. Oversized: above the limit of a source.
        assert_eq!(whatsapp.post_with(&server, &other, &whatsapp.headers(&good, "1", now())).status, 401);
        assert_eq!(standard.post_with(&server, b"{}", &standard.headers(b"{}", "1", long_ago)).status, 401);
        let length = ["content-length: 5000000", "content-length: 4194305"];
        for length in length {
            let mut client = server.client();
            let head = format!("POST /webhook/whatsapp HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n");
            client.send_raw(head.as_bytes()).unwrap();
            assert_eq!(client.receive().unwrap().status, 413);
        }
        // Truncated: the rest is never sent, and the client disconnects.
        let mut client = server.client();
        client.send_raw(b"POST /webhook/whatsapp HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n{").unwrap();
        drop(client);
        // Wrongly encoded or nested too deeply, with a valid signature: stored, and reported as unreadable.
        for body in &hostile {
            assert_eq!(whatsapp.post(&server, body, "1").status, 200);
        }
    };
    let resident = || server.metric("postroom_process_resident_memory_bytes").unwrap();
    let rounds = |count: usize| (0..count).for_each(|_| round());
    rounds(2);
    let before = resident();
    rounds(6);
    let after = resident();
    assert!(after - before < GROWTH_BYTES_MAX, "{before} bytes became {after}");
    assert_eq!((refused(&server, "wrong_secret"), refused(&server, "stale_timestamp")), (8.0, 8.0));
    assert_eq!(refused(&server, "body_too_large"), 16.0);
    wait_until("those who went away are counted", || {
        (refused(&server, "unanswered") + refused(&server, "malformed_request") >= 8.0).then_some(())
    });
    assert_eq!((server.rows(), server.get("/messages/kept").json()["text"].as_str()), (1, Some("as it was")));
    assert_eq!(server.get("/messages/kept?raw=1").body, good);
    let unreadable = server.get("/events?kind=unreadable&limit=100").json();
    assert!(unreadable["data"].as_array().unwrap().len() >= hostile.len() - 1, "{unreadable}");
}
