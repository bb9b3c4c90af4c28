//! The floor: an HTTP server that reads, verifies, parses and responds, and stores nothing. The cost of a message is
//! given as a multiple of the cost of a request here.
//!
//! This file must never change between releases except for renamed functions: figures are compared over years. So it
//! has no log, metric, limit, watchdog or router, and no setting of `serve` leads here. It listens on the loopback
//! address only, and ends when its standard input does, so that it cannot outlive the benchmark.

use std::convert::Infallible;
use std::io::Write;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use domain::{Moment, Secret};
use providers::{Key, SCHEMES, Source};

/// Serves until standard input ends. The first line on stdout has the address and identifies the floor.
pub fn run(secret: Secret) -> anyhow::Result<()> {
    let scheme = &SCHEMES[0];
    let source = Source::new(scheme.kind, scheme, vec![Key::new("WEBHOOK_SECRET", secret)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        println!("{}", serde_json::json!({ "address": address.to_string(), "note": "for measuring: STORES NOTHING" }));
        std::io::stdout().flush()?;
        let source: &'static Source = Box::leak(Box::new(source));
        tokio::spawn(accept(listener, source));
        let end_of_input = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        end_of_input.await??;
        Ok(())
    })
}

async fn accept(listener: TcpListener, source: &'static Source) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(source, request).await) });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { drop(connection.await) });
    }
}

/// All steps of a request before it could be stored.
async fn answer(source: &Source, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if head.uri.path() != "/webhook" || head.method != Method::POST {
        return reply(StatusCode::NOT_FOUND, br#"{"detail":"Not Found"}"#);
    }
    let Ok(body) = body.collect().await else {
        return reply(StatusCode::BAD_REQUEST, br#"{"detail":"Bad Request"}"#);
    };
    let (body, now) = (body.to_bytes(), Moment::now());
    let asked = providers::Request { headers: &head.headers, body: &body, base_url: None, target: "/webhook" };
    let Ok(body) = source.verify(&asked, body.clone(), now) else {
        return reply(StatusCode::UNAUTHORIZED, br#"{"detail":"invalid signature"}"#);
    };
    match source.parse(&body, now) {
        Ok(_) => reply(StatusCode::OK, br#"{"status":"ok"}"#),
        Err(_) => reply(StatusCode::UNPROCESSABLE_ENTITY, br#"{"detail":"Unprocessable Entity"}"#),
    }
}

fn reply(status: StatusCode, body: &'static [u8]) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
