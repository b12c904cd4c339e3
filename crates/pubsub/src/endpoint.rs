//! Endpoints of push subscriptions: where messages may be posted, and as whom.
//!
//! Who may make a subscription chooses its endpoint and what its token says. Both end here: an
//! address that only this server reaches is refused, and a token names an account and an audience
//! that nobody else's subscription can name, so that a receiver can tell by its token whose
//! messages came.

use levada_bus::port::{OidcToken, PushConfig, SubscriptionSpec};

use crate::access::{Owner, Projects};
use crate::api::PubsubApi;
use crate::error::ApiError;
use crate::names;

impl PubsubApi {
    /// Checks an endpoint before it is kept. A name is resolved only when it is posted to.
    ///
    /// # Errors
    /// INVALID_ARGUMENT without https outside of development, for an address that may not be
    /// called, and for an account or audience that is not the subscription's.
    pub(crate) fn check_endpoint(&self, spec: &SubscriptionSpec) -> Result<(), ApiError> {
        let Some(push) = &spec.push else { return Ok(()) };
        let invalid = |what: &str| {
            ApiError::invalid(format!(
                "Invalid push endpoint given (endpoint={}): {what}.",
                names::shown(&push.endpoint)
            ))
        };
        let url = levada_outbound::parse(&push.endpoint)
            .map_err(|_| invalid("write it as https://<host>/<path>"))?;
        // Outside of development messages leave the machine encrypted only.
        if url.scheme() != "https" && !self.projects.is_dev() {
            return Err(invalid("it must begin with https://"));
        }
        levada_outbound::check(&self.config.egress, &url).map_err(|refused| invalid(&refused.to_string()))?;
        self.check_token(spec, push)
    }

    /// Whether the token of a subscription says only what its project may say.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with what it may say.
    pub(crate) fn check_token(&self, spec: &SubscriptionSpec, push: &PushConfig) -> Result<(), ApiError> {
        match &push.oidc {
            // In development all projects are one developer's.
            Some(token) if !self.projects.is_dev() => {
                Identity::of(spec, &self.projects).check(token, &push.endpoint)
            }
            _ => Ok(()),
        }
    }
}

/// The names that tokens of a subscription may bear.
struct Identity {
    /// Accounts end in it.
    domain: String,
    /// Audiences of the project's own begin with it.
    namespace: String,
}

impl Identity {
    /// By the project; in a project of the platform also by the one tenant of the subscription.
    fn of(spec: &SubscriptionSpec, projects: &Projects) -> Self {
        let project = &spec.name.project;
        match (&spec.tenant, projects.owner(project)) {
            (Some(tenant), Some(Owner::Platform)) => Self {
                domain: format!("@{tenant}.{project}.iam.gserviceaccount.com"),
                namespace: format!("projects/{project}/tenants/{tenant}/"),
            },
            _ => Self {
                domain: format!("@{project}.iam.gserviceaccount.com"),
                namespace: format!("projects/{project}/"),
            },
        }
    }

    fn check(&self, token: &OidcToken, endpoint: &str) -> Result<(), ApiError> {
        let email = token.service_account_email.as_str();
        let named = email.strip_suffix(&self.domain).is_some_and(is_account);
        if !named {
            return Err(ApiError::invalid(format!(
                "Invalid service account given (email={}): a token of this subscription names an account of its \
                 own project, <name>{}, with lower-case letters, digits and '-'.",
                names::shown(email),
                self.domain
            )));
        }
        if self.may_address(&token.audience, endpoint) {
            return Ok(());
        }
        Err(ApiError::invalid(format!(
            "Invalid audience given (audience={}): leave it out, name the endpoint or a URL that the endpoint lies \
             under, or a name that begins with {}.",
            names::shown(&token.audience),
            self.namespace
        )))
    }

    /// A token reaches its endpoint, and whoever receives it there could show it elsewhere: it
    /// must be of no use for another receiver.
    fn may_address(&self, audience: &str, endpoint: &str) -> bool {
        if audience.is_empty() || audience == endpoint {
            return true;
        }
        // A tenant's part of a platform's project is the tenant's.
        let own = audience.strip_prefix(&self.namespace);
        if own.is_some_and(|rest| !rest.is_empty() && !rest.starts_with("tenants/")) {
            return true;
        }
        let (Ok(wide), Ok(narrow)) = (levada_outbound::parse(audience), levada_outbound::parse(endpoint))
        else {
            return false;
        };
        let above = wide.path().trim_end_matches('/');
        let lies_under =
            narrow.path().strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        wide.origin() == narrow.origin()
            && wide.query().is_none()
            && wide.fragment().is_none()
            && wide.username().is_empty()
            && wide.password().is_none()
            && lies_under
    }
}

fn is_account(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use levada_core::{ProjectId, TenantId};

    use super::*;

    fn identity(name: &str, tenant: Option<&str>) -> Identity {
        let project = |id: &str| ProjectId::new(id).expect("a project");
        let acme = TenantId::new("acme").expect("a tenant");
        let projects = Projects::new([
            (project("shared"), Owner::Platform),
            (project("acme-prod"), Owner::Tenant(acme)),
        ]);
        let topic = "shared/orders".parse().expect("a name");
        let mut spec = SubscriptionSpec::new(name.parse().expect("a name"), topic);
        spec.tenant = tenant.map(|t| TenantId::new(t).expect("a tenant"));
        Identity::of(&spec, &projects)
    }

    fn takes(identity: &Identity, email: &str, audience: &str, endpoint: &str) -> bool {
        let token = OidcToken { service_account_email: email.into(), audience: audience.into() };
        identity.check(&token, endpoint).is_ok()
    }

    #[test]
    fn an_account_is_one_of_the_own_project() {
        let own = identity("acme-prod/pushed", Some("acme"));
        let part = identity("shared/pushed", Some("acme"));
        let platform = identity("shared/pushed", None);
        let endpoint = "https://me.example/push";
        let good = [
            (&own, "push@acme-prod.iam.gserviceaccount.com"),
            (&part, "push@acme.shared.iam.gserviceaccount.com"),
            (&platform, "push@shared.iam.gserviceaccount.com"),
        ];
        for (identity, email) in good {
            assert!(takes(identity, email, "", endpoint), "{email}");
            for (other, foreign) in good.iter().filter(|(_, other)| *other != email) {
                assert!(!takes(other, email, "", endpoint), "{email} beside {foreign}");
            }
        }
        for bad in [
            "",
            "push@example.org",
            "@acme-prod.iam.gserviceaccount.com",
            "push@x.acme-prod.iam.gserviceaccount.com",
            "a@b@acme-prod.iam.gserviceaccount.com",
            "PUSH@acme-prod.iam.gserviceaccount.com",
            "push@acme-prod.iam.gserviceaccount.com ",
            "push@acme-prod.iam.gserviceaccount.com.evil.example",
        ] {
            assert!(!takes(&own, bad, "", endpoint), "{bad}");
        }
    }

    #[test]
    fn an_audience_is_the_endpoint_or_a_name_of_the_project() {
        let (own, part) = (identity("acme-prod/pushed", None), identity("shared/pushed", Some("acme")));
        let endpoint = "https://me.example:8443/hooks/push?key=1";
        for good in [
            "",
            endpoint,
            "https://me.example:8443",
            "https://me.example:8443/",
            "https://me.example:8443/hooks",
            "https://me.example:8443/hooks/push",
            "projects/acme-prod/receiver",
        ] {
            assert!(own.may_address(good, endpoint), "{good}");
        }
        for bad in [
            "me",
            "https://me.example",
            "http://me.example:8443",
            "https://you.example:8443",
            "https://me.example:8443/hook",
            "https://me.example:8443/hooks/push/more",
            "https://me.example:8443/hooks?key=2",
            "https://x@me.example:8443/hooks",
            "projects/acme-prod/",
            "projects/acme-prod2/receiver",
            "projects/shared/receiver",
        ] {
            assert!(!own.may_address(bad, endpoint), "{bad}");
        }
        assert!(part.may_address("projects/shared/tenants/acme/x", endpoint));
        for bad in ["projects/shared/x", "projects/shared/tenants/other/x"] {
            assert!(!part.may_address(bad, endpoint), "{bad}");
        }
        let platform = identity("shared/pushed", None);
        assert!(platform.may_address("projects/shared/x", endpoint));
        assert!(!platform.may_address("projects/shared/tenants/acme/x", endpoint));
    }
}
