//! The rules of tenancy.

use super::*;
use levada_core::Problem;

struct Keys;

impl Authenticator for Keys {
    fn is_valid(&self, _: &levada_core::Principal) -> bool {
        true
    }

    fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        let (tenants, role) =
            secret.split_once('/').ok_or_else(|| Problem::new(401, "unauthenticated", "no"))?;
        let tenants = match tenants {
            "all" => TenantSet::All,
            some => TenantSet::Only(some.split('+').map(|t| TenantId::new(t).expect("a tenant")).collect()),
        };
        let roles = [role.parse().expect("a role")].into();
        Ok(Arc::new(Principal { id: secret.into(), name: secret.into(), tenants, roles }))
    }
}

fn projects(dev: bool) -> Arc<Projects> {
    let owners = [
        (ProjectId::new("shared").expect("a project"), Owner::Platform),
        (ProjectId::new("acme").expect("a project"), Owner::Tenant(TenantId::new("acme").expect("a tenant"))),
    ];
    Arc::new(if dev { Projects::dev(owners) } else { Projects::new(owners) })
}

fn caller(secret: &str) -> Caller {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {secret}").parse().expect("a header"));
    Caller::authenticate(&headers, &Keys, &projects(false)).expect("a caller")
}

fn enter(secret: &str, project: &str) -> Option<Access> {
    caller(secret).enter(&ProjectId::new(project).expect("a project"))
}

#[test]
fn a_credential_is_needed_except_in_development() {
    let none = HeaderMap::new();
    let error = Caller::authenticate(&none, &Keys, &projects(false)).expect_err("no credential");
    assert_eq!(error.code, Code::Unauthenticated);
    assert!(Caller::authenticate(&none, &Keys, &projects(true)).expect("development").may_operate());
    for name in ["x-goog-api-key", "x-api-key"] {
        let mut headers = HeaderMap::new();
        headers.insert(name, "acme/service".parse().expect("a header"));
        assert!(Caller::authenticate(&headers, &Keys, &projects(false)).is_ok());
    }
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer wrong".parse().expect("a header"));
    assert!(Caller::authenticate(&headers, &Keys, &projects(false)).is_err());
}

#[test]
fn a_project_of_another_tenant_does_not_exist() {
    assert!(enter("acme/admin", "acme").is_some() && enter("all/admin", "acme").is_some());
    assert!(enter("other/admin", "acme").is_none());
    assert!(enter("all/admin", "nowhere").is_none());
    assert!(enter("other/admin", "shared").is_some());
}

#[test]
fn topics_of_the_platform_are_for_callers_of_all_tenants_who_operate() {
    let control = |secret, project| enter(secret, project).expect("access").require_topic_control().is_ok();
    assert!(control("all/engineer", "shared") && control("acme/engineer", "acme"));
    assert!(!control("acme/admin", "shared"));
    assert!(!control("all/service", "shared") && !control("acme/client", "acme"));
}

#[test]
fn a_publish_enters_only_tenants_of_the_caller() {
    let context = |secret, project, tenant| {
        let access = enter(secret, project).expect("access");
        access.publish_context(tenant).map(|c| c.tenant().to_string()).map_err(|e| e.code)
    };
    assert_eq!(context("acme/service", "shared", Some("acme")), Ok("acme".into()));
    assert_eq!(context("acme/service", "shared", None), Ok("acme".into()));
    assert_eq!(context("acme/service", "shared", Some("other")), Err(Code::PermissionDenied));
    assert_eq!(context("all/service", "shared", Some("other")), Ok("other".into()));
    assert_eq!(context("all/service", "shared", None), Err(Code::InvalidArgument));
    assert_eq!(context("a+b/service", "shared", None), Err(Code::InvalidArgument));
    assert_eq!(context("a+b/service", "shared", Some("Not Valid")), Err(Code::InvalidArgument));
    assert_eq!(context("acme/service", "acme", Some("other")), Ok("acme".into()), "all of it is the owner's");
    let open = Caller::authenticate(&HeaderMap::new(), &Keys, &projects(true)).expect("development");
    let access = open.enter(&ProjectId::new("any").expect("a project")).expect("access");
    assert_eq!(access.publish_context(None).map(|c| c.tenant().to_string()).ok(), Some("default".into()));
}

#[test]
fn a_subscription_carries_the_tenant_it_is_bound_to() {
    let tenant = |secret, project, topic| {
        let (project, topic) =
            (enter(secret, project).expect("access"), enter(secret, topic).expect("access"));
        project.subscription_tenant(&topic).map(|t| t.map(|t| t.to_string())).map_err(|e| e.code)
    };
    assert_eq!(tenant("all/engineer", "shared", "shared"), Ok(None));
    assert_eq!(tenant("acme/engineer", "shared", "shared"), Ok(Some("acme".into())));
    assert_eq!(tenant("a+b/engineer", "shared", "shared"), Err(Code::InvalidArgument));
    assert_eq!(tenant("all/engineer", "acme", "shared"), Ok(Some("acme".into())));
    assert_eq!(tenant("acme/engineer", "acme", "acme"), Ok(None));
    let access = enter("acme/engineer", "shared").expect("access");
    let id = |t| TenantId::new(t).expect("a tenant");
    assert!(access.sees(Some(&id("acme"))) && !access.sees(Some(&id("other"))) && !access.sees(None));
}
