//! Who is logged in, and the lake as that principal sees it.

use std::sync::Arc;
use std::time::Duration;

use levada_core::{Authenticator, Principal, Problem, TenantId, TenantSet};
use levada_lake::{Lake, QueryLimits, SqlSession, SqlSettings};

use crate::catalog;
use crate::encode::Shown;
use crate::error::{Failure, Outcome, fatal, info};
use crate::rewrite::{Facts, rewrite};
use crate::settings::{Settings, settings_of};

/// Database names that mean all tenants of the key; tools insist on having one.
const EVERYTHING: [&str; 3] = ["", "levada", "postgres"];

/// One login.
pub(crate) struct Session {
    lake: Lake,
    authenticator: Arc<dyn Authenticator>,
    /// Kept to ask again before every statement.
    secret: String,
    tenant: Option<TenantId>,
    limits: QueryLimits,
    /// Who logged in.
    pub principal: Arc<Principal>,
    pub user: String,
    pub database: String,
    pub number: i32,
    pub settings: Settings,
}

/// What a client says at login.
pub(crate) struct Login {
    pub user: String,
    pub database: String,
    pub secret: String,
}

impl Session {
    /// # Errors
    /// Fatal: 28P01 for a key that is not good, 3D000 for a database that is no tenant of it.
    pub fn new(
        lake: Lake,
        authenticator: Arc<dyn Authenticator>,
        limits: QueryLimits,
        login: Login,
        number: i32,
        version: String,
    ) -> Outcome<Self> {
        let principal = authenticator.authenticate(&login.secret).map_err(|problem| refused(&problem))?;
        let tenant = narrowed(&principal, &login)?;
        let settings = Settings::new(version, &login.user);
        let database = if login.database.is_empty() { "levada".to_owned() } else { login.database };
        let Login { user, secret, .. } = login;
        Ok(Self { lake, authenticator, secret, tenant, limits, principal, user, database, number, settings })
    }

    /// Asks for the key again, and opens the lake for one statement.
    ///
    /// # Errors
    /// Fatal when the key is no longer good or no longer holds the tenant.
    pub fn open(&self) -> Outcome<SqlSession> {
        let principal = self.authenticator.authenticate(&self.secret).map_err(|problem| refused(&problem))?;
        self.lake
            .session(&principal, self.tenant.as_ref())
            .map_err(|problem| Failure::Fatal(Box::new(info("FATAL", &problem))))
    }

    /// The same, with the statement in terms that the lake knows, and PostgreSQL's catalogue
    /// beside the tables where the statement asks for it.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_for(&self, sql: &str) -> Outcome<(SqlSession, String)> {
        let settings =
            SqlSettings { time_zone: self.settings.time_zone(), search_path: self.settings.search_path() };
        let mut lake = self.open()?.with_settings(settings);
        let facts = Facts {
            user: &self.user,
            database: &self.database,
            number: self.number,
            setting: &|name| self.settings.get(name),
            oid_of: &|name| catalog::oid_of(name),
        };
        let rewritten = rewrite(sql, &facts);
        if rewritten.needs_catalog {
            let tables = lake.tables();
            for (name, rows) in catalog::relations(&tables, &self.user, &self.database, &self.settings) {
                lake.add_relation("pg_catalog", name, rows)?;
            }
        }
        Ok((lake, rewritten.sql))
    }

    /// Follows the calls of `set_config` in a statement.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn set_config(&mut self, sql: &str) -> Outcome<()> {
        for (name, value, until) in settings_of(sql) {
            self.settings.set(&name, &value, until)?;
        }
        Ok(())
    }

    /// How values are written for this session.
    pub fn shown(&self) -> Shown {
        Shown { zone: self.settings.time_zone(), extra_float_digits: self.settings.extra_float_digits() }
    }

    /// The server's limits, or less where the client asked for less.
    pub fn limits(&self) -> QueryLimits {
        let asked = self.settings.statement_timeout().unwrap_or(Duration::MAX);
        QueryLimits { timeout: self.limits.timeout.min(asked), ..self.limits }
    }
}

/// The login is over: the key's own words, and PostgreSQL's code.
fn refused(problem: &Problem) -> Failure {
    Failure::Fatal(Box::new(info("FATAL", problem)))
}

/// The tenant that a database name narrows to. libpq sends the user's name where none is
/// given, and user names are free, so a name equal to the user's counts only if the key is
/// bound to a tenant of that name.
fn narrowed(principal: &Principal, login: &Login) -> Outcome<Option<TenantId>> {
    if EVERYTHING.contains(&login.database.as_str()) {
        return Ok(None);
    }
    let unsaid = login.database == login.user;
    let tenant = TenantId::new(&login.database).ok().filter(|tenant| principal.tenants.contains(tenant));
    match tenant {
        Some(_) if unsaid && principal.tenants == TenantSet::All => Ok(None),
        Some(tenant) => Ok(Some(tenant)),
        None if unsaid => Ok(None),
        None => Err(fatal(
            "3D000",
            format!("database \"{}\" does not exist", login.database),
            Some("use `levada` for all tenants of the key, or the name of one of them"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_database_narrows_to_a_tenant_of_the_key_or_to_none() {
        let acme = TenantId::new("acme").expect("a tenant");
        let principal =
            |tenants| Principal { id: "k".into(), name: "k".into(), tenants, roles: BTreeSet::new() };
        let of = |principal: &Principal, user: &str, database: &str| {
            let login = Login { user: user.into(), database: database.into(), secret: String::new() };
            narrowed(principal, &login).map(|t| t.map(|t| t.to_string())).map_err(|_| ())
        };
        let bound = principal(TenantSet::Only([acme].into()));
        let platform = principal(TenantSet::All);
        for everything in ["", "levada", "postgres", "anna"] {
            assert_eq!(of(&bound, "anna", everything), Ok(None), "{everything}");
        }
        assert_eq!(of(&bound, "anna", "acme"), Ok(Some("acme".into())));
        assert_eq!(of(&bound, "acme", "acme"), Ok(Some("acme".into())));
        assert_eq!(of(&bound, "anna", "other"), Err(()));
        assert_eq!(of(&bound, "anna", "No Tenant"), Err(()));
        assert_eq!(of(&platform, "anna", "anna"), Ok(None));
        assert_eq!(of(&platform, "anna", "acme"), Ok(Some("acme".into())));
    }
}
