//! Constants by which the engine takes room in advance.

use arrow::datatypes::DataType;
use datafusion::common::plan_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::scalar::ScalarValue;

/// A value of a fixed size has at most so many bytes.
const MAX_TYPE_BYTES: u64 = 4 << 10;
const MAX_CENTROIDS: i64 = 10_000;

/// Refuses types of which a single null is large, such as `int[1000000]` and
/// `FixedSizeBinary(1000000)`, and many centroids of `approx_percentile_cont`.
///
/// # Errors
/// What is refused, as the statement's fault.
pub(crate) fn refuse_large(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                refuse_wide_type(expr)?;
                refuse_many_centroids(expr)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

fn refuse_wide_type(expr: &Expr) -> Result<()> {
    let wanted = match expr {
        Expr::Cast(cast) => Some(cast.field.data_type().clone()),
        Expr::TryCast(cast) => Some(cast.field.data_type().clone()),
        Expr::ScalarFunction(call) if call.func.name().starts_with("arrow_") => match call.args.get(1) {
            Some(Expr::Literal(text, _)) => text.try_as_str().flatten().and_then(|text| text.parse().ok()),
            _ => None,
        },
        _ => None,
    };
    match wanted {
        Some(wanted) if fixed_bytes(&wanted) > MAX_TYPE_BYTES => plan_err!(
            "a value of type {wanted} has {} bytes, and {MAX_TYPE_BYTES} are allowed",
            fixed_bytes(&wanted)
        ),
        _ => Ok(()),
    }
}

fn refuse_many_centroids(expr: &Expr) -> Result<()> {
    let (name, args) = match expr {
        Expr::AggregateFunction(call) => (call.func.name(), &call.params.args),
        Expr::WindowFunction(call) => (call.fun.name(), &call.params.args),
        _ => return Ok(()),
    };
    if !name.starts_with("approx_percentile") {
        return Ok(());
    }
    for arg in args {
        let Expr::Literal(value, _) = arg else { continue };
        if let Ok(ScalarValue::Int64(Some(count))) = value.cast_to(&DataType::Int64)
            && count > MAX_CENTROIDS
        {
            return plan_err!("{name} with {count} centroids, and {MAX_CENTROIDS} are allowed");
        }
    }
    Ok(())
}

/// Bytes of any value of a type, be it null.
fn fixed_bytes(of: &DataType) -> u64 {
    match of {
        DataType::FixedSizeBinary(bytes) => u64::try_from(*bytes).unwrap_or(0),
        DataType::FixedSizeList(element, count) => {
            fixed_bytes(element.data_type()).max(1).saturating_mul(u64::try_from(*count).unwrap_or(0))
        }
        DataType::Struct(fields) => fields.iter().map(|field| fixed_bytes(field.data_type())).sum(),
        DataType::List(element) | DataType::LargeList(element) | DataType::Map(element, _) => {
            fixed_bytes(element.data_type())
        }
        DataType::Dictionary(_, values) => fixed_bytes(values),
        other => other.primitive_width().unwrap_or(16) as u64,
    }
}
