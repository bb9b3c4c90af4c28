//! Black-box tests: the real program runs on a free port with a temporary folder, and gets HTTP requests.

mod harness;

mod access;
mod addresses;
mod api;
mod bench;
mod circles;
mod crash;
mod deploy;
mod docs;
mod edges;
mod faults;
mod fuzz;
mod health;
mod index;
mod logs;
mod messages;
mod metrics;
mod overload;
mod postgres;
mod prefix;
mod process;
mod real_input;
mod scripts;
mod send;
mod sources;
mod stats;
mod storage;
mod tidy;
mod upgrade;
mod webhook;
