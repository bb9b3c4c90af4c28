//! The `postroom` program: parse the arguments, run, exit.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    postroom::cli::main()
}
