//! Which versions of TLS and which cipher suites are offered, by the names that kube-apiserver's flags take.

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::crypto_provider;

static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];
static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The oldest version that is spoken (`--tls-min-version`). Nothing below TLS 1.2 is ever spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// `VersionTLS12`.
    #[default]
    Tls12,
    /// `VersionTLS13`.
    Tls13,
}

/// A cipher suite that can be offered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CipherSuite(SupportedCipherSuite);

impl CipherSuite {
    /// All that there are, the best first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        crypto_provider().cipher_suites.iter().copied().map(Self).collect()
    }

    /// Finds one by its name in the registry of IANA, as Go and kube-apiserver call it.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|suite| suite.name() == name)
    }

    /// Its name. rustls marks those of TLS 1.3 in it, IANA does not.
    #[must_use]
    pub fn name(self) -> String {
        let name = self.0.suite().as_str().unwrap_or_default();
        name.replacen("TLS13_", "TLS_", 1)
    }

    /// Whether it is one of TLS 1.3.
    #[must_use]
    pub fn is_of_tls13(self) -> bool {
        self.0.tls13().is_some()
    }
}

/// What a server offers. By default TLS 1.2 and 1.3 with all suites that are safe.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// The oldest version.
    pub minimum: TlsVersion,
    /// The suites of TLS 1.2 that may be used; all where this is empty. Those of TLS 1.3 are always offered, as by Go
    /// (`crypto/tls.Config.CipherSuites`).
    pub cipher_suites: Vec<CipherSuite>,
}

impl TlsOptions {
    /// Leaves in a provider what is offered.
    pub(super) fn restrict(&self, provider: &mut CryptoProvider) {
        if self.cipher_suites.is_empty() {
            return;
        }
        let named = |suite: &SupportedCipherSuite| self.cipher_suites.iter().any(|one| one.0 == *suite);
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || named(suite));
    }

    /// The versions that can be spoken with what [`TlsOptions::restrict`] leaves.
    pub(super) fn versions(&self, provider: &CryptoProvider) -> &'static [&'static SupportedProtocolVersion] {
        let has_tls12 = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
        if self.minimum == TlsVersion::Tls13 || !has_tls12 {
            ONLY_TLS13
        } else {
            BOTH
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_the_names_that_kube_apiserver_knows() {
        let name = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
        let suite = CipherSuite::by_name(name).unwrap();
        assert_eq!((suite.name().as_str(), suite.is_of_tls13()), (name, false));
        assert!(CipherSuite::by_name("TLS_AES_128_GCM_SHA256").unwrap().is_of_tls13());
        assert!(CipherSuite::by_name("TLS_RSA_WITH_AES_128_CBC_SHA").is_none());
    }

    #[test]
    fn what_is_not_named_is_not_offered() {
        let offered = |options: &TlsOptions| {
            let mut provider = CryptoProvider::clone(&crypto_provider());
            options.restrict(&mut provider);
            let old = provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none());
            (old.count(), options.versions(&provider).len())
        };
        let (all, versions) = offered(&TlsOptions::default());
        assert!(all > 1 && versions == 2);
        let one = |name| TlsOptions {
            cipher_suites: vec![CipherSuite::by_name(name).unwrap()],
            ..TlsOptions::default()
        };
        assert_eq!(offered(&one("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")), (1, 2));
        assert_eq!(
            offered(&one("TLS_AES_128_GCM_SHA256")),
            (0, 1),
            "none is left for TLS 1.2"
        );
        let new = TlsOptions {
            minimum: TlsVersion::Tls13,
            ..TlsOptions::default()
        };
        assert_eq!(offered(&new).1, 1);
    }
}
