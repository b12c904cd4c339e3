//! The tokens that pushes carry: JWTs signed with a key of our own (ES256), and the documents
//! by which a receiver verifies them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use levada_bus::port::OidcToken;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

/// How long a token holds.
const LIFE_S: i64 = 3_600;

/// The key is not one that can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the push key is not a P-256 key in PKCS #8; delete it, and a new one is made")]
pub struct PushKeyError;

/// The key that signs tokens of pushes.
pub struct PushKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

impl fmt::Debug for PushKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PushKey {
    /// A new key in PKCS #8, to be kept secret and given to [`PushKey::from_pkcs8`].
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Vec<u8>, PushKeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Ok(document.map_err(|_| PushKeyError)?.as_ref().to_vec())
    }

    /// # Errors
    /// [`PushKeyError`] when the bytes are not such a key.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, PushKeyError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes, &random)
            .map_err(|_| PushKeyError)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
        let id = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..12]);
        Ok(Self { pair, random, id })
    }

    /// The public key as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, x, y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({"keys": [{
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }

    /// A token for one endpoint.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(super) fn token(
        &self,
        issuer: &str,
        endpoint: &str,
        settings: &OidcToken,
        now_ms: i64,
    ) -> Result<String, PushKeyError> {
        let audience = if settings.audience.is_empty() { endpoint } else { &settings.audience };
        let issued_at = now_ms / 1_000;
        let header = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        let claims = json!({
            "iss": issuer,
            "aud": audience,
            "azp": settings.service_account_email,
            "sub": settings.service_account_email,
            "email": settings.service_account_email,
            "email_verified": true,
            "iat": issued_at,
            "exp": issued_at + LIFE_S,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).map_err(|_| PushKeyError)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

/// The discovery document of an issuer.
pub(super) fn discovery(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["iss", "aud", "azp", "sub", "email", "email_verified", "iat", "exp"],
    })
}

/// The two documents, for a router without authentication.
pub fn router(config: &super::PushConfig) -> axum::Router {
    let (keys, about) = (config.key.jwks(), discovery(&config.issuer));
    axum::Router::new()
        .route(
            "/.well-known/jwks.json",
            axum::routing::get(move || std::future::ready(axum::Json(keys.clone()))),
        )
        .route(
            "/.well-known/openid-configuration",
            axum::routing::get(move || std::future::ready(axum::Json(about.clone()))),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn a_token_verifies_by_the_published_key_and_says_for_whom_it_is() {
        let key = PushKey::from_pkcs8(&PushKey::generate().expect("a key")).expect("a key");
        let settings =
            OidcToken { service_account_email: "push@example.org".into(), audience: String::new() };
        let token =
            key.token("https://levada.example", "https://me.example/push", &settings, 1_700_000_000_000);
        let token = token.expect("a token");
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64");
        let jwk = &key.jwks()["keys"][0];
        let coordinate = |name: &str| decode(jwk[name].as_str().expect("a coordinate"));
        let point: Vec<u8> = [vec![4], coordinate("x"), coordinate("y")].concat();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        assert!(public.verify(signed.as_bytes(), &decode(signature)).is_ok());
        assert!(public.verify(format!("{signed}x").as_bytes(), &decode(signature)).is_err());
        let (header, claims) = signed.split_once('.').expect("two parts");
        let json = |text: &str| serde_json::from_slice::<Value>(&decode(text)).expect("JSON");
        assert_eq!(json(header)["kid"], jwk["kid"]);
        assert_eq!(json(claims)["aud"], "https://me.example/push");
        assert_eq!(json(claims)["exp"], 1_700_003_600);
        assert!(PushKey::from_pkcs8(b"no key").is_err());
    }
}
