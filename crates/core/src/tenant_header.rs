//! The header `X-Tenant-ID`, read alike at every door: it narrows a caller to one tenant.

use std::sync::Arc;

use crate::{Principal, Problem, TenantId, TenantSet};

/// The tenant that a request names, by all values of the header.
///
/// # Errors
/// `header-invalid` (400), whoever asks, for anything but the name of one tenant. A header that
/// was passed over would leave the caller wider than it asked to be.
pub fn named_tenant<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Result<Option<TenantId>, Problem> {
    let mut values = values.into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    let tenant = std::str::from_utf8(value).ok().and_then(|text| TenantId::new(text).ok());
    match tenant.filter(|_| values.next().is_none()) {
        Some(tenant) => Ok(Some(tenant)),
        None => Err(Problem::new(400, "header-invalid", "X-Tenant-ID must be the id of one tenant")
            .hint("write the tenant as levada.yaml has it, once, or leave the header out")),
    }
}

impl Principal {
    /// The principal within one tenant of its own.
    ///
    /// # Errors
    /// As [`Principal::enter`].
    pub fn narrowed(self: &Arc<Self>, tenant: &TenantId) -> Result<Arc<Self>, Problem> {
        self.enter(tenant)?;
        let only = TenantSet::Only([tenant.clone()].into());
        Ok(Arc::new(Self { tenants: only, ..(**self).clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_one_tenant_or_nothing_is_done() {
        let read = |values: &[&'static [u8]]| named_tenant(values.iter().copied());
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b"acme"]).map(|t| t.map(|t| t.to_string())), Ok(Some("acme".to_owned())));
        for bad in [&[&b""[..]][..], &[b"Acme"], &[b"../x"], &["ü".as_bytes()], &[b"\xff"], &[b"a b"]] {
            assert_eq!(
                read(bad).map_err(|p| (p.status, p.code)),
                Err((400, "header-invalid".into())),
                "{bad:?}"
            );
        }
        assert!(read(&[b"acme", b"acme"]).is_err() && read(&[b"acme", b"globex"]).is_err());
    }
}
