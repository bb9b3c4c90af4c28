//! Faults of the system: disks that fail, fill up and
//! lose power. A small library between the program and
//! the system (`shim.c`) injects them at a chosen moment.

mod clock;
mod disk_full;
mod io_errors;
mod power_cut;
mod record;
mod shim;
