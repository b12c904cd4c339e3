//! The key ring against the simulated disk: what lasts, what is refused, what never shows.

use std::collections::BTreeSet;
use std::time::Duration;

use levada_core::{ManualClock, TenantId};
use levada_disk::{Disk, SimDisk, read_all};

use super::*;

const NOW_MS: i64 = 1_700_000_000_000;

struct Fixture {
    disk: Arc<dyn Disk>,
    clock: Arc<ManualClock>,
}

impl Fixture {
    fn new() -> Self {
        Self { disk: Arc::new(SimDisk::new(7)), clock: Arc::new(ManualClock::new(NOW_MS)) }
    }

    fn ring(&self) -> KeyRing {
        let store = DocumentStore::open(self.disk.clone(), "store").expect("the store opens");
        KeyRing::open(store, self.clock.clone()).expect("the ring opens")
    }
}

fn key(tenants: TenantSet, roles: &[Role]) -> NewKey {
    NewKey { name: "a key".into(), tenants, roles: roles.iter().copied().collect(), expires_at_ms: None }
}

fn only(tenant: &str) -> TenantSet {
    TenantSet::Only(BTreeSet::from([TenantId::new(tenant).expect("a valid id")]))
}

#[test]
fn a_key_opens_with_its_tenants_and_roles_and_outlives_a_restart() {
    let fixture = Fixture::new();
    let (info, secret) = fixture.ring().create(key(only("acme"), &[Role::Service])).expect("created");
    let ring = fixture.ring();
    let principal = ring.authenticate(secret.expose()).expect("the secret opens");
    assert_eq!((principal.id.as_str(), &principal.tenants), (info.id.as_str(), &only("acme")));
    assert_eq!(principal.roles, BTreeSet::from([Role::Service]));
    assert_eq!(ring.list(), vec![info]);
}

#[test]
fn the_secret_has_the_documented_shape_and_256_bits() {
    let ring = Fixture::new().ring();
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let (info, secret) = ring.create(key(TenantSet::All, &[Role::Admin])).expect("created");
        let rest = secret.expose().strip_prefix(&format!("lvd_{}_", info.id)).expect("lvd_<id>_<secret>");
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(rest).expect("base64url");
        assert_eq!(bytes.len(), 32);
        assert!(!info.id.contains('_'));
        assert!(seen.insert(bytes) && seen.len() == ring.list().len(), "no secret and no id comes twice");
    }
}

#[test]
fn revocation_takes_effect_at_once_and_lasts() {
    let fixture = Fixture::new();
    let ring = fixture.ring();
    let (info, secret) = ring.create(key(only("acme"), &[Role::Client])).expect("created");
    let (_, other) = ring.create(key(only("acme"), &[Role::Client])).expect("created");
    assert!(ring.authenticate(secret.expose()).is_ok());
    let revoked = ring.revoke(&info.id).expect("revoked");
    assert_eq!(revoked.state(NOW_MS), KeyState::Revoked);
    assert!(ring.authenticate(secret.expose()).is_err());
    assert!(ring.authenticate(other.expose()).is_ok(), "another key is not touched");
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(ring.revoke(&info.id).expect("again").revoked_at_ms, Some(NOW_MS), "the first time counts");
    assert!(fixture.ring().authenticate(secret.expose()).is_err(), "also after a restart");
}

#[test]
fn expiry_is_exact_and_every_refusal_reads_the_same() {
    let fixture = Fixture::new();
    let ring = fixture.ring();
    let mut new = key(only("acme"), &[Role::Client]);
    new.expires_at_ms = Some(NOW_MS + 1_000);
    let (_, expiring) = ring.create(new).expect("created");
    let (gone, revoked) = ring.create(key(only("acme"), &[Role::Client])).expect("created");
    ring.revoke(&gone.id).expect("revoked");
    fixture.clock.advance(Duration::from_millis(999));
    assert!(ring.authenticate(expiring.expose()).is_ok());
    fixture.clock.advance(Duration::from_millis(1));
    let expired = ring.authenticate(expiring.expose()).expect_err("expired");
    assert_eq!(expired.code, "unauthenticated");
    let mut wrong = expiring.expose().to_owned();
    wrong.pop();
    let unknown_id = format!("lvd_{}_{}", "a".repeat(12), "b".repeat(43));
    let long = format!("lvd_{}", "a".repeat(100_000));
    for presented in [revoked.expose(), &wrong, &unknown_id, &long, "", "lvd_", "lvd__", "Bearer x", "é"] {
        let refusal = ring.authenticate(presented).expect_err("refused");
        assert_eq!(refusal, expired, "{:.40}", presented);
    }
}

#[test]
fn neither_the_disk_nor_debug_output_holds_a_secret() {
    let fixture = Fixture::new();
    let ring = fixture.ring();
    let (info, secret) = ring.create(key(only("acme"), &[Role::Client])).expect("created");
    let random_part = secret.expose().rsplit_once(&format!("{}_", info.id)).expect("shape").1;
    let mut files = 0;
    let mut folders = vec!["store".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fixture.disk.list(&folder).expect("listed") {
            let path = format!("{folder}/{}", entry.name);
            if entry.is_dir {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = read_all(&*fixture.disk, &path).expect("read");
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(random_part), "{path} holds the secret");
            let plain = blake3::hash(secret.expose().as_bytes());
            assert!(!text.contains(plain.to_hex().as_str()), "{path} holds an unkeyed hash");
        }
    }
    assert!(files >= 2, "the key and the hash key are on disk");
    for shown in [format!("{secret:?}"), format!("{secret}"), format!("{ring:?}"), format!("{info:?}")] {
        assert!(!shown.contains(random_part), "{shown}");
    }
}

#[test]
fn the_first_admin_key_is_made_once_and_its_secret_is_kept_first() {
    let fixture = Fixture::new();
    let mut kept = None;
    let failed = fixture.ring().ensure_admin(|_| Err(std::io::Error::other("disk full")));
    assert!(matches!(failed, Err(AccessError::Store(_))));
    assert!(fixture.ring().list().is_empty(), "no key whose secret nobody has");
    let made = fixture.ring().ensure_admin(|s| {
        kept = Some(s.clone());
        Ok(())
    });
    assert!(made.expect("made").is_some_and(|info| info.is_platform_admin()));
    let ring = fixture.ring();
    let principal = ring.authenticate(kept.expect("kept").expose()).expect("it opens");
    assert!(principal.is_platform_admin());
    let again = ring.ensure_admin(|_| panic!("a second one is not made"));
    assert_eq!(again.expect("nothing to do"), None);
}

#[test]
fn the_last_platform_admin_cannot_lock_everybody_out() {
    let ring = Fixture::new().ring();
    let (first, _) = ring.create(key(TenantSet::All, &[Role::Admin])).expect("created");
    ring.create(key(only("acme"), &[Role::Admin])).expect("a tenant's admin is none of the platform");
    assert!(matches!(ring.revoke(&first.id), Err(AccessError::LastAdmin)));
    let (_, second) = ring.create(key(TenantSet::All, &[Role::Admin])).expect("created");
    ring.revoke(&first.id).expect("now it may go");
    assert!(ring.authenticate(second.expose()).is_ok());
}

#[test]
fn keys_that_make_no_sense_are_refused() {
    let ring = Fixture::new().ring();
    let mut past = key(TenantSet::All, &[Role::Client]);
    past.expires_at_ms = Some(NOW_MS);
    let mut nameless = key(TenantSet::All, &[Role::Client]);
    nameless.name = " ".into();
    let mut control = key(TenantSet::All, &[Role::Client]);
    control.name = "a\nb".into();
    let no_tenant = key(TenantSet::Only(BTreeSet::new()), &[Role::Client]);
    for bad in [past, nameless, control, no_tenant, key(TenantSet::All, &[])] {
        assert!(matches!(ring.create(bad.clone()), Err(AccessError::Invalid(_))), "{bad:?}");
    }
    assert!(matches!(ring.revoke("nobody"), Err(AccessError::NotFound(_))));
    assert!(ring.list().is_empty());
}

#[test]
fn a_lost_hash_key_is_an_error_and_not_a_new_one() {
    let fixture = Fixture::new();
    fixture.ring().create(key(TenantSet::All, &[Role::Admin])).expect("created");
    let store = DocumentStore::open(fixture.disk.clone(), "store").expect("the store opens");
    store.remove(HASH_KEY).expect("removed");
    let opened = KeyRing::open(store, fixture.clock.clone());
    assert!(matches!(opened, Err(AccessError::Corrupt(_))));
}
