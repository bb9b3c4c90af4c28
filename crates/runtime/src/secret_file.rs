//! Files that hold one secret: a token, a password, a URL with a password.

/// The bytes of the file, without one line end at the end, which editors and `echo` add.
/// The error is a sentence that follows the name of the setting.
/// It shows no content of the file.
pub fn read_secret_file(path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = std::fs::read(path).map_err(|error| format!("names '{path}', which cannot be read: {error}"))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}
