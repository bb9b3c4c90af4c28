//! TLS to the server, verified according to `sslmode`.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::{ParsedCertificate, VerifierBuilderError};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use thiserror::Error as ThisError;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::certificate::Certificate;
use crate::postgres::config::{Roots, Trust};

/// The fix for an untrusted certificate, by the library's error.
const REMEDIES: [(&str, &str); 6] = [
    ("UnknownIssuer", "sslrootcert names no authority that signed the server's certificate"),
    (
        "not valid for name",
        "connect with a name in the certificate, or skip the check of the name with sslmode=verify-ca",
    ),
    ("expired", "renew the server's certificate"),
    (
        "UnsupportedCertVersion",
        "the server's certificate is of X.509 version 1, which names no hosts: create one with a subjectAltName, or use \
         sslmode=verify-ca",
    ),
    (
        "HandshakeFailure",
        "the server's key may have an unsupported type; supported are RSA from 2,048 bits on, P-256, P-384 and Ed25519",
    ),
    (
        "CaUsedAsEndEntity",
        "the server's certificate is an authority's certificate: name it, or its issuer, in sslrootcert",
    ),
];

/// Why connections cannot be encrypted, or a server cannot be verified, in one line for the operator.
#[derive(Debug, ThisError)]
pub enum TlsError {
    /// No certificate of an authority was found.
    #[error("{place} contains no usable certificate{}", why.as_ref().map_or_else(String::new, |why| format!(": {why}")))]
    NoRoots {
        /// The searched location.
        place: String,
        /// The error of the system.
        why: Option<rustls_native_certs::Error>,
    },
    /// The file with certificates of authorities is missing or unreadable.
    #[error("{place} cannot be read: {why}")]
    Unreadable {
        /// The file.
        place: String,
        /// The error of the system.
        why: std::io::Error,
    },
    /// The certificates are not valid as authorities.
    #[error("the root certificates cannot be used: {0}")]
    Roots(VerifierBuilderError),
    /// The library supports no version of the protocol.
    #[error("TLS is not available: {0}")]
    Unavailable(Error),
}

/// A connector for this level of trust.
pub(super) fn connector(trust: &Trust) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let (authority, roots) = match trust {
        Trust::Anyone => (None, Vec::new()),
        Trust::Authority(roots) | Trust::Host(roots) => {
            let (store, roots) = load(roots)?;
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
            (Some(verifier.build().map_err(TlsError::Roots)?), roots)
        }
    };
    let proves_host = matches!(trust, Trust::Host(_));
    let verifier = Verifier { authority, roots, proves_host, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(TlsError::Unavailable)?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// The fix for a TLS error, if known.
pub(super) fn remedy(error: &str) -> Option<&'static str> {
    REMEDIES.iter().find(|(mark, _)| error.contains(mark)).map(|(_, remedy)| *remedy)
}

fn load(roots: &Roots) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let (loaded, place) = match roots {
        Roots::System => (rustls_native_certs::load_native_certs(), "this machine's certificate store".to_owned()),
        Roots::File(path) => {
            let place = format!("sslrootcert {}", path.display());
            if let Err(why) = std::fs::metadata(path) {
                return Err(TlsError::Unreadable { place, why });
            }
            (rustls_native_certs::load_certs_from_paths(Some(path), None), place)
        }
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(loaded.certs.iter().cloned());
    if added == 0 {
        return Err(TlsError::NoRoots { place, why: loaded.errors.into_iter().next() });
    }
    Ok((store, loaded.certs))
}

/// Verifies as much as was configured. Without an authority the connection is encrypted,
/// but the server is not verified: that is the usual meaning of `sslmode=require`.
#[derive(Debug)]
struct Verifier {
    authority: Option<Arc<WebPkiServerVerifier>>,
    /// The trusted certificates, unchanged.
    roots: Vec<CertificateDer<'static>>,
    proves_host: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }

    /// Whether the certificate is itself a trusted one, or has version 1 and is signed by a trusted one.
    /// The library does not accept these for a server. Intermediate certificates are not accepted here.
    fn is_vouched_for(&self, server: &CertificateDer<'_>, now: UnixTime) -> bool {
        let Some(certificate) = Certificate::read(server).filter(|certificate| certificate.holds_at(now)) else {
            return false;
        };
        self.roots.iter().any(|root| {
            root == server
                || (certificate.is_first_version
                    && Certificate::read(root).is_some_and(|root| {
                        root.holds_at(now) && certificate.is_signed_by(&root, self.algorithms().all)
                    }))
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        let verified = authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The library checks the name last, so the chain is already verified.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.proves_host => Ok(ServerCertVerified::assertion()),
            Err(error) if self.is_vouched_for(end_entity, now) => {
                if self.proves_host {
                    // Only an extension contains host names, and version 1 has no extensions.
                    let parsed = ParsedCertificate::try_from(end_entity).map_err(|_| error)?;
                    verify_server_name(&parsed, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls12_signature(message, certificate, signature, self.algorithms());
        let Err(error @ Error::InvalidCertificate(_)) = verified else { return verified };
        // The library does not parse it; its key has the same position as in other versions.
        let of_scheme = self.algorithms().mapping.iter().find(|(scheme, _)| *scheme == signature.scheme);
        let (Some((_, known)), Some(read)) = (of_scheme, Certificate::read(certificate)) else { return Err(error) };
        read.signed(message, signature.signature(), known).then(HandshakeSignatureValid::assertion).ok_or(error)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls13_signature(message, certificate, signature, self.algorithms());
        let Err(error @ Error::InvalidCertificate(_)) = verified else { return verified };
        let Some(read) = Certificate::read(certificate) else { return Err(error) };
        let key = SubjectPublicKeyInfoDer::from(read.key);
        verify_tls13_signature_with_raw_key(message, &key, signature, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}
