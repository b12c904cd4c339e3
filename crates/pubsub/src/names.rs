//! Resource names as the API writes them, and the opaque page token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use levada_bus::port::PageRequest;
use levada_core::{ProjectId, ResourceName};

use crate::error::{ApiError, Bound};

/// What a topic is called once it was deleted.
pub const DELETED_TOPIC: &str = "_deleted-topic_";
/// What a schema is called once it was deleted.
pub const DELETED_SCHEMA: &str = "_deleted-schema_";

/// The largest page; larger requests are cut to it, as the API documents.
const MAX_PAGE: usize = 1_000;

/// Parses `projects/<project>/<collection>/<id>`.
///
/// # Errors
/// INVALID_ARGUMENT with the offender and the rule.
pub fn resource(text: &str, collection: &str) -> Result<ResourceName, ApiError> {
    ResourceName::parse_path(text, collection).map_err(|error| {
        let text = format!(
            "Invalid resource name given (name={}): {}; write it as projects/<project>/{collection}/<id>.",
            shown(text),
            error.rule
        );
        ApiError::invalid_field("name", text)
    })
}

/// Parses `projects/<project>`.
///
/// # Errors
/// INVALID_ARGUMENT with the offender and the rule.
pub fn project(text: &str) -> Result<ProjectId, ApiError> {
    let id = text.strip_prefix("projects/").unwrap_or("");
    ProjectId::new(id).map_err(|error| {
        ApiError::invalid(format!(
            "Invalid resource name given (name={}): {}; write it as projects/<project>.",
            shown(text),
            error.rule
        ))
    })
}

/// A text from outside, fit for an error message.
pub fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Which part of a list a request asks for.
///
/// # Errors
/// INVALID_ARGUMENT for a negative size or a token that no list answered.
pub fn page(size: i32, token: &str) -> Result<PageRequest, ApiError> {
    let wanted = usize::try_from(size)
        .map_err(|_| ApiError::out_of_range("page_size", size, 0, MAX_PAGE as i64, Bound::Below))?;
    let after = if token.is_empty() { None } else { Some(read_token(token)?) };
    Ok(PageRequest { size: if wanted == 0 { 100 } else { wanted.min(MAX_PAGE) }, after })
}

fn read_token(token: &str) -> Result<ResourceName, ApiError> {
    let bad =
        || ApiError::invalid("You have passed an invalid argument to the service (argument=page_token).");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let (sum, name) = bytes.split_first_chunk::<4>().ok_or_else(bad)?;
    if crc32c::crc32c(name) != u32::from_le_bytes(*sum) {
        return Err(bad());
    }
    std::str::from_utf8(name).map_err(|_| bad())?.parse().map_err(|_| bad())
}

/// The token of the page after `next`; empty at the end.
pub fn page_token(next: Option<&ResourceName>) -> String {
    let Some(name) = next else { return String::new() };
    let name = name.to_string();
    let mut bytes = crc32c::crc32c(name.as_bytes()).to_le_bytes().to_vec();
    bytes.extend_from_slice(name.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_full_paths_of_their_own_collection() {
        let name = resource("projects/demo/topics/orders.v1", "topics").expect("a name");
        assert_eq!(name.path("topics"), "projects/demo/topics/orders.v1");
        assert!(resource("projects/demo/topics/a%2Bb+c~d", "topics").is_ok());
        for bad in [
            "",
            "orders",
            "projects/demo/topics/",
            "projects/demo/topics/ab",
            "projects/demo/topics/goog-x",
            "projects/demo/topics/1abc",
            "projects/demo/subscriptions/orders",
            "projects/demo/topics/orders/x",
            "projects//topics/orders",
            "projects/Demo/topics/orders",
            DELETED_TOPIC,
        ] {
            let error = resource(bad, "topics").expect_err(bad);
            assert_eq!(error.code, tonic::Code::InvalidArgument);
            assert!(error.message.contains("Invalid resource name given"), "{}", error.message);
        }
        assert!(project("projects/demo").is_ok());
        assert!(project("demo").is_err() && project("projects/a/b").is_err());
    }

    #[test]
    fn page_tokens_survive_the_way_out_and_back_and_refuse_anything_else() {
        let name = resource("projects/demo/topics/orders", "topics").expect("a name");
        let token = page_token(Some(&name));
        assert_eq!(page(7, &token).expect("a page").after, Some(name));
        assert_eq!(page(0, "").expect("a page").size, 100);
        assert_eq!(page(5_000, "").expect("a page").size, 1_000);
        assert!(page(-1, "").is_err());
        for bad in ["x", "orders", "AAAAAAAA", &token[1..]] {
            assert!(page(1, bad).is_err(), "{bad}");
        }
    }
}
