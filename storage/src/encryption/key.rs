//! Keys, and what they do to a value.
//!
//! The scheme is that of Kubernetes' KMS v2 (`NewHKDFExtendedNonceGCMTransformer` of
//! `k8s.io/apiserver/pkg/storage/value/encrypt/aes`): every value is encrypted with AES-256-GCM under a key of its own,
//! which HKDF-SHA256 (RFC 5869, expand only: the secret is random already) derives from the secret and 32 random bytes that
//! are stored with the value. With one key for all values, random nonces of 96 bits would collide with a probability above
//! 2^-32 after 2^32 writes (NIST SP 800-38D, section 8.3); with derived keys there is no such limit, and no need to rotate
//! for its sake.
//!
//! The key that the value is stored under is authenticated with it, so a value that somebody moves to another key is refused.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, rand};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::value::{SEALED, is_name};

/// The bytes of a secret: what HKDF-SHA256 and AES-256 need to be worth their names.
pub const SECRET_BYTES: usize = 32;

/// Random bytes that the key of a value is derived from: two values share them with a probability of 2^-128 after 2^64
/// writes.
const INFO_BYTES: usize = 32;
/// The bytes at the end by which AES-GCM knows its own.
const TAG_BYTES: usize = 16;

/// A key. The secret is wiped from memory when it is dropped, and never printed.
pub struct EncryptionKey {
    name: Arc<str>,
    seed: hkdf::Prk,
}

/// Why there is no such key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name cannot be part of a value.
    #[error("the name of a key has 1 to 63 letters, digits, `-`, `_` and `.`")]
    Name,
    /// The secret is too short, or not what it should be.
    #[error(
        "the secret has {found} bytes where {SECRET_BYTES} are needed; `head -c {SECRET_BYTES} /dev/urandom | base64` makes one"
    )]
    Secret {
        /// The bytes that it has.
        found: usize,
    },
}

impl EncryptionKey {
    /// A key of that name.
    ///
    /// # Errors
    /// Where the name or the length of the secret is wrong.
    pub fn new(name: &str, secret: &[u8]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        if secret.len() != SECRET_BYTES {
            return Err(KeyError::Secret { found: secret.len() });
        }
        Ok(Self {
            name: name.into(),
            seed: hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret),
        })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Encrypts a value that is to be stored under `storage_key`.
    ///
    /// # Errors
    /// Where there are no random bytes.
    pub(super) fn seal(&self, storage_key: &str, plain: &[u8]) -> Result<Bytes, Unspecified> {
        let mut random = [0; INFO_BYTES + NONCE_LEN];
        rand::fill(&mut random)?;
        let header = SEALED.len() + self.name.len() + 1 + random.len();
        let mut value = Vec::with_capacity(header + plain.len() + TAG_BYTES);
        value.extend_from_slice(SEALED);
        value.extend_from_slice(self.name.as_bytes());
        value.push(b':');
        value.extend_from_slice(&random);
        value.extend_from_slice(plain);
        let (info, nonce) = random.split_at(INFO_BYTES);
        let tag = self.derive(info)?.seal_in_place_separate_tag(
            Nonce::try_assume_unique_for_key(nonce)?,
            Aad::from(storage_key.as_bytes()),
            &mut value[header..],
        )?;
        value.extend_from_slice(tag.as_ref());
        Ok(value.into())
    }

    /// Decrypts what [`EncryptionKey::seal`] made, given what follows the name.
    ///
    /// # Errors
    /// Where it was made with another key, for another place, or was changed.
    pub(super) fn open(&self, storage_key: &str, sealed: &[u8]) -> Result<Bytes, Unspecified> {
        let (info, rest) = sealed.split_at_checked(INFO_BYTES).ok_or(Unspecified)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or(Unspecified)?;
        let length = rest.len().checked_sub(TAG_BYTES).ok_or(Unspecified)?;
        let (encrypted, tag) = rest.split_at(length);
        let mut plain = vec![0; length];
        self.derive(info)?.open_separate_gather(
            Nonce::try_assume_unique_for_key(nonce)?,
            Aad::from(storage_key.as_bytes()),
            encrypted,
            tag,
            &mut plain,
        )?;
        Ok(plain.into())
    }

    /// The key of one value. The label keeps it apart from anything else that somebody derives from the same secret.
    fn derive(&self, info: &[u8]) -> Result<LessSafeKey, Unspecified> {
        let info = [SEALED, info];
        let derived = self.seed.expand(&info, &AES_256_GCM)?;
        Ok(LessSafeKey::new(UnboundKey::from(derived)))
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EncryptionKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A new secret.
///
/// # Errors
/// Where there are no random bytes.
pub(super) fn random_secret() -> Result<Zeroizing<[u8; SECRET_BYTES]>, Unspecified> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    rand::fill(&mut secret[..])?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encryption::value::{Stored, parse};

    fn open(key: &EncryptionKey, storage_key: &str, value: &[u8]) -> Result<Bytes, Unspecified> {
        match parse(value) {
            Stored::Sealed { key: name, sealed } if name == &*key.name => key.open(storage_key, sealed),
            _ => Err(Unspecified),
        }
    }

    #[test]
    fn two_values_have_nothing_in_common_and_the_secret_is_not_printed() {
        let key = EncryptionKey::new("k", &[7; 32]).unwrap();
        let values = [(); 2].map(|()| key.seal("/a", b"value").unwrap());
        let random = SEALED.len() + 2;
        assert_ne!(values[0][random..random + 32], values[1][random..random + 32]);
        assert_ne!(values[0][random + 44..], values[1][random + 44..]);
        let printed = format!("{key:?}");
        assert!(!printed.contains('7') && printed.contains("\"k\""), "{printed}");
    }

    #[test]
    fn names_and_secrets_are_checked() {
        for name in ["", "a:b", "a/b", "ä", &"n".repeat(64)] {
            assert_eq!(
                EncryptionKey::new(name, &[0; 32]).unwrap_err(),
                KeyError::Name,
                "{name}"
            );
        }
        let error = EncryptionKey::new("k", &[0; 16]).unwrap_err();
        assert_eq!(error, KeyError::Secret { found: 16 });
    }

    proptest! {
        #[test]
        fn a_value_comes_back(secret: [u8; 32], place: String, plain: Vec<u8>) {
            let key = EncryptionKey::new("key-1", &secret).unwrap();
            let value = key.seal(&place, &plain).unwrap();
            prop_assert_eq!(open(&key, &place, &value).unwrap(), plain);
        }

        #[test]
        fn a_value_does_not_come_back_from_another_key_or_place(
            secrets: [[u8; 32]; 2], places in any::<(String, String)>(), plain: Vec<u8>
        ) {
            prop_assume!(secrets[0] != secrets[1] && places.0 != places.1);
            let [key, other] = secrets.map(|secret| EncryptionKey::new("k", &secret).unwrap());
            let value = key.seal(&places.0, &plain).unwrap();
            prop_assert!(open(&other, &places.0, &value).is_err());
            prop_assert!(open(&key, &places.1, &value).is_err());
        }

        #[test]
        fn a_value_that_was_changed_or_cut_does_not_come_back(
            plain in prop::collection::vec(any::<u8>(), 0..64), change in 1..=255u8
        ) {
            let key = EncryptionKey::new("k", &[1; 32]).unwrap();
            let value = key.seal("/a", &plain).unwrap();
            for place in 0..value.len() {
                let mut changed = value.to_vec();
                changed[place] ^= change;
                prop_assert!(open(&key, "/a", &changed).is_err(), "byte {place}");
                prop_assert!(open(&key, "/a", &value[..place]).is_err(), "cut at {place}");
            }
        }
    }
}
