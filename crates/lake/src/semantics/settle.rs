//! The last rule of analysis. When the types of all operands are settled, what the engine would
//! compute in another way than PostgreSQL gets a function in its place: arithmetic that can
//! overflow, casts that would cut instead of round, text of times and floats, and whatever of an
//! instant depends on the session's time zone.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, IntervalUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, ScalarUDF, lit, when,
};
use datafusion::optimizer::analyzer::AnalyzerRule;

use super::function::{Function, by_rows, type_of};
use super::zone::{TimeZone, instant_type};
use super::{arithmetic, text, zone};

/// See the module's description.
#[derive(Debug)]
pub(super) struct Settle {
    round: Arc<ScalarUDF>,
    as_text: Arc<ScalarUDF>,
    timezone: Arc<ScalarUDF>,
    to_real: Arc<ScalarUDF>,
    same: Arc<ScalarUDF>,
}

impl Settle {
    pub fn new() -> Self {
        Self {
            round: round_to_whole(),
            as_text: text::as_text(),
            timezone: zone::timezone(),
            to_real: to_real(),
            same: same(),
        }
    }
}

impl AnalyzerRule for Settle {
    fn name(&self) -> &str {
        "settle_semantics"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let zone = Some(zone::of_session(config)).filter(|zone| *zone != TimeZone::UTC);
        plan.transform_up_with_subqueries(|plan| self.plan(plan, zone)).map(|plan| plan.data)
    }
}

impl Settle {
    fn plan(&self, plan: LogicalPlan, zone: Option<TimeZone>) -> Result<Transformed<LogicalPlan>> {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
            schema.merge(&source);
        }
        let names = NamePreserver::new(&plan);
        let settled = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let settled = expr.transform_up(|expr| self.expr(expr, &schema, zone))?;
            Ok(settled.update_data(|expr| name.restore(expr)))
        })?;
        let settled = settled.transform_data(|plan| match plan {
            LogicalPlan::Filter(filter) => guard(filter),
            LogicalPlan::Join(mut join) => {
                let hide = |key| self.hidden(key, &schema);
                join.on = join.on.into_iter().map(|(left, right)| (hide(left), hide(right))).collect();
                Ok(Transformed::yes(LogicalPlan::Join(join)))
            }
            LogicalPlan::Sort(mut sort) => {
                for key in &mut sort.expr {
                    key.expr = self.hidden(std::mem::take(&mut key.expr), &schema);
                }
                Ok(Transformed::yes(LogicalPlan::Sort(sort)))
            }
            plan => Ok(Transformed::no(plan)),
        })?;
        settled.map_data(LogicalPlan::recompute_schema)
    }

    fn expr(&self, expr: Expr, schema: &DFSchema, zone: Option<TimeZone>) -> Result<Transformed<Expr>> {
        match expr {
            Expr::Cast(cast) => self.cast(cast, schema, zone),
            Expr::BinaryExpr(binary) if zone.is_some() && is_shift_of_instant(&binary, schema) => {
                Ok(match zone {
                    Some(zone) => self.shift(binary, schema, zone)?,
                    None => Transformed::no(Expr::BinaryExpr(binary)),
                })
            }
            Expr::BinaryExpr(binary) if sees_nan(&binary, schema) => Ok(self.unpruned(binary, schema)),
            Expr::AggregateFunction(mut call) if call.func.name() == "max" => {
                let args = std::mem::take(&mut call.params.args);
                call.params.args = args.into_iter().map(|arg| self.hidden(arg, schema)).collect();
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            }
            Expr::ScalarFunction(call) => match zone {
                Some(zone) => self.local_function(call, schema, zone),
                None => Ok(Transformed::no(Expr::ScalarFunction(call))),
            },
            other => {
                let (expr, changed) = arithmetic::checked(other, |expr| expr.get_type(schema))?;
                Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
            }
        }
    }

    fn cast(&self, cast: Cast, schema: &DFSchema, zone: Option<TimeZone>) -> Result<Transformed<Expr>> {
        let (from, to) = (cast.expr.get_type(schema)?, cast.field.data_type().clone());
        let Cast { expr, field } = cast;
        if to.is_integer() && (from.is_floating() || matches!(from, DataType::Decimal128(..))) {
            // Types are settled: nothing casts the arguments of a function that is put in now.
            let number = match from.is_floating() {
                true => Expr::Cast(Cast::new(expr, DataType::Float64)),
                false => *expr,
            };
            let rounded = call(&self.round, vec![number]);
            return Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(rounded), field })));
        }
        if to == DataType::Float32 && (from == DataType::Float64 || from.is_decimal()) {
            let wide = Expr::Cast(Cast::new(expr, DataType::Float64));
            return Ok(Transformed::yes(call(&self.to_real, vec![wide])));
        }
        if to.is_string() && text::differs(&from) {
            let written = call(&self.as_text, vec![*expr]);
            return Ok(Transformed::yes(match to {
                DataType::Utf8 => written,
                _ => Expr::Cast(Cast { expr: Box::new(written), field }),
            }));
        }
        let Some(zone) = zone else {
            return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
        };
        let is_instant = |of: &DataType| matches!(of, DataType::Timestamp(_, Some(_)));
        let is_local =
            |of: &DataType| matches!(of, DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64);
        if is_instant(&from) && (is_local(&to) || matches!(to, DataType::Time32(_) | DataType::Time64(_))) {
            let instant = Expr::Cast(Cast::new(expr, instant_type()));
            let local = self.convert(instant, zone);
            return Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(local), field })));
        }
        if is_local(&from) && is_instant(&to) {
            let local = Expr::Cast(Cast::new(expr, zone::local_type()));
            let instant = self.convert(local, zone);
            return Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(instant), field })));
        }
        if let DataType::Timestamp(unit, Some(_)) = &to
            && from.is_string()
        {
            let read = DataType::Timestamp(*unit, Some(zone.name().into()));
            let instant = Expr::Cast(Cast::new(expr, read));
            return Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(instant), field })));
        }
        Ok(Transformed::no(Expr::Cast(Cast { expr, field })))
    }

    /// A column of floats in a form that no statistics of files answer: they leave NaN out, which
    /// is the greatest value. Other expressions stay as they are.
    fn hidden(&self, expr: Expr, schema: &DFSchema) -> Expr {
        let is_float =
            matches!(expr, Expr::Column(_)) && expr.get_type(schema).is_ok_and(|of| of.is_floating());
        if is_float { call(&self.same, vec![expr]) } else { expr }
    }

    /// A comparison that a NaN may pass.
    fn unpruned(&self, binary: BinaryExpr, schema: &DFSchema) -> Transformed<Expr> {
        let BinaryExpr { left, op, right } = binary;
        let (left, right) = (self.hidden(*left, schema), self.hidden(*right, schema));
        Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
    }

    /// Between an instant and the session's local time.
    fn convert(&self, time: Expr, zone: TimeZone) -> Expr {
        let name = match zone.name() {
            // A name that is an offset has the sign of ISO 8601; the function reads POSIX.
            name if name.starts_with('+') => name.replacen('+', "-", 1),
            name if name.starts_with('-') => name.replacen('-', "+", 1),
            name => name,
        };
        call(&self.timezone, vec![lit(name), time])
    }

    /// Functions of the calendar look at the wall clock of the session.
    fn local_function(
        &self,
        mut function: ScalarFunction,
        schema: &DFSchema,
        zone: TimeZone,
    ) -> Result<Transformed<Expr>> {
        let name = function.func.name().to_owned();
        let is_calendar = match name.as_str() {
            "date_trunc" => true,
            "date_part" => !matches!(
                function.args.first(),
                Some(Expr::Literal(ScalarValue::Utf8(Some(part)), _)) if part.eq_ignore_ascii_case("epoch")
            ),
            _ => false,
        };
        let Some(time) = function.args.get(1).filter(|_| is_calendar) else {
            return Ok(Transformed::no(Expr::ScalarFunction(function)));
        };
        if !matches!(time.get_type(schema)?, DataType::Timestamp(_, Some(_))) {
            return Ok(Transformed::no(Expr::ScalarFunction(function)));
        }
        let of = Expr::ScalarFunction(function.clone()).get_type(schema)?;
        let time = Expr::Cast(Cast::new(Box::new(function.args[1].clone()), instant_type()));
        function.args[1] = self.convert(time, zone);
        let local = Expr::ScalarFunction(function);
        Ok(Transformed::yes(match name.as_str() {
            "date_trunc" => {
                let local = Expr::Cast(Cast::new(Box::new(local), zone::local_type()));
                Expr::Cast(Cast::new(Box::new(self.convert(local, zone)), of))
            }
            _ => local,
        }))
    }

    /// An instant plus or minus an interval: months and days go by the calendar of the session,
    /// hours and less by the clock.
    fn shift(&self, binary: BinaryExpr, schema: &DFSchema, zone: TimeZone) -> Result<Transformed<Expr>> {
        let of = binary.left.get_type(schema)?;
        let BinaryExpr { left, op, right } = binary;
        let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = right.as_ref() else {
            return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
        };
        if interval.months == 0 && interval.days == 0 {
            return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
        }
        let part = |months, days, nanos| lit(ScalarValue::new_interval_mdn(months, days, nanos));
        let local = self.convert(Expr::Cast(Cast::new(left, instant_type())), zone);
        let calendar = part(interval.months, interval.days, 0);
        let moved = Expr::BinaryExpr(BinaryExpr::new(Box::new(local), op, Box::new(calendar)));
        let moved = Expr::Cast(Cast::new(Box::new(moved), zone::local_type()));
        let instant = Expr::Cast(Cast::new(Box::new(self.convert(moved, zone)), of));
        if interval.nanoseconds == 0 {
            return Ok(Transformed::yes(instant));
        }
        let clock = part(0, 0, interval.nanoseconds);
        Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(instant), op, Box::new(clock)))))
    }
}

fn call(function: &Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
}

/// Whether a column of floats is compared with a constant in a way that NaN, the greatest value,
/// may pass.
fn sees_nan(binary: &BinaryExpr, schema: &DFSchema) -> bool {
    use Operator as O;
    let is_column = |expr: &Expr| {
        matches!(expr, Expr::Column(_)) && expr.get_type(schema).is_ok_and(|of| of.is_floating())
    };
    let is_value = |expr: &Expr| !expr.any_column_refs();
    (is_column(&binary.left)
        && is_value(&binary.right)
        && matches!(binary.op, O::Eq | O::NotEq | O::Gt | O::GtEq))
        || (is_value(&binary.left)
            && is_column(&binary.right)
            && matches!(binary.op, O::Eq | O::NotEq | O::Lt | O::LtEq))
}

/// `same(x)` is x.
fn same() -> Arc<ScalarUDF> {
    Function::udf(
        "same",
        |types| Ok(types.to_vec()),
        |args| type_of(args, 0),
        |args| match args.args.first() {
            Some(value) => Ok(value.clone()),
            None => exec_err!("same takes one value"),
        },
    )
}

fn is_shift_of_instant(binary: &BinaryExpr, schema: &DFSchema) -> bool {
    let of = |expr: &Expr| expr.get_type(schema).ok();
    matches!(binary.op, Operator::Plus | Operator::Minus)
        && matches!(of(&binary.left), Some(DataType::Timestamp(_, Some(_))))
        && matches!(of(&binary.right), Some(DataType::Interval(IntervalUnit::MonthDayNano)))
}

/// Conditions that may fail are looked at only where the others beside them hold, so that
/// `b <> 0 and a / b > 1` is safe to write.
fn guard(filter: Filter) -> Result<Transformed<LogicalPlan>> {
    let fails = |expr: &Expr| expr.exists(|expr| Ok(arithmetic::divides(expr))).unwrap_or(false);
    if !fails(&filter.predicate) {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let (risky, safe): (Vec<Expr>, Vec<Expr>) =
        split_conjunction_owned(filter.predicate.clone()).into_iter().partition(fails);
    let (Some(risky), Some(safe)) = (conjunction(risky), conjunction(safe)) else {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    };
    // A CASE of truth values would be taken apart into AND and OR again; one of numbers is not.
    let as_number = Expr::Cast(Cast::new(Box::new(risky), DataType::Int32));
    let guarded = when(safe.clone(), as_number).otherwise(lit(0_i32))?.eq(lit(1_i32));
    Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(safe.and(guarded), filter.input)?)))
}

/// A cast to a float of 32 bits, which fails beyond its range.
fn to_real() -> Arc<ScalarUDF> {
    Function::udf(
        "to_real",
        |_| Ok(vec![DataType::Float64]),
        |_| Ok(DataType::Float32),
        |args| {
            by_rows(args, |arrays| {
                let values = arrays[0].as_primitive::<Float64Type>();
                let real =
                    values.try_unary::<_, Float32Type, datafusion::error::DataFusionError>(|value| {
                        let real = value as f32;
                        match real.is_infinite() && value.is_finite() {
                            true => exec_err!("value out of range: overflow"),
                            false => Ok(real),
                        }
                    })?;
                Ok(Arc::new(real))
            })
        },
    )
}

/// What a cast to a whole number does first: floats round half to even, decimals half away from
/// zero.
fn round_to_whole() -> Arc<ScalarUDF> {
    Function::udf(
        "round_to_whole",
        |types| match types {
            [DataType::Decimal128(precision, scale)] => Ok(vec![DataType::Decimal128(*precision, *scale)]),
            [of] if of.is_floating() => Ok(vec![DataType::Float64]),
            _ => plan_err!("round_to_whole takes one number"),
        },
        |args| {
            Ok(match type_of(args, 0)? {
                // One digit more: 9.5 becomes 10.
                DataType::Decimal128(precision, scale) => {
                    let whole = i32::from(precision) - i32::from(scale) + 1;
                    DataType::Decimal128(u8::try_from(whole.clamp(1, 38)).unwrap_or(38), 0)
                }
                of => of,
            })
        },
        |args| {
            let to = args.return_type().clone();
            by_rows(args, |arrays| match (arrays[0].data_type(), to) {
                (DataType::Decimal128(_, scale), DataType::Decimal128(precision, _)) => {
                    let values = arrays[0].as_primitive::<Decimal128Type>();
                    let unit = 10i128.pow(scale.unsigned_abs().into());
                    let scale = *scale;
                    let rounded = values.try_unary::<_, Decimal128Type, datafusion::error::DataFusionError>(
                        |value| {
                            if scale <= 0 {
                                return match value.checked_mul(unit) {
                                    Some(value) => Ok(value),
                                    None => exec_err!("integer out of range"),
                                };
                            }
                            let rest = (value % unit).unsigned_abs();
                            let up = i128::from(rest >= unit.unsigned_abs() - rest);
                            Ok(value / unit + up * value.signum())
                        },
                    )?;
                    Ok(Arc::new(rounded.with_precision_and_scale(precision, 0)?))
                }
                _ => {
                    let values = arrays[0].as_primitive::<Float64Type>();
                    let rounded: Float64Array = values.unary(f64::round_ties_even);
                    if (0..rounded.len()).any(|row| rounded.is_valid(row) && !rounded.value(row).is_finite())
                    {
                        return exec_err!("integer out of range");
                    }
                    Ok(Arc::new(rounded))
                }
            })
        },
    )
}
