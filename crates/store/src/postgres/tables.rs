//! Whether our tables can be used: privileges, row security, and management by Citus.
//! Checked at every start, by `check`, and by the health monitor before it reports recovery:
//! if one statement of many lacked a privilege, readiness would otherwise alternate.

use super::failure::Failure;
use super::session::Session;

pub(super) const NO_SCHEMA: &str = "search_path names no existing schema that the role may use";
pub(super) const NO_CREATE: &str =
    "the role needs the right to CREATE in its schema, at least until the tables are there";
/// Maximum privileges that are named one by one.
const TOLD_MAX: usize = 3;

/// The tables of requests and background work, and the functions and sequences that they
/// call. Finds missing privileges of the role, and tables whose rows row security hides
/// from it. `messages` needs only SELECT and INSERT. Missing objects are not reported here.
const LACKING: &str = "\
    WITH ours AS (
        SELECT name, to_regclass(name)::oid AS id FROM unnest(ARRAY['messages', 'postroom_state', 'postroom_buckets',
            'postroom_senders', 'postroom_sender_days', 'postroom_search', 'postroom_folded', 'postroom_places',
            'postroom_runs', 'postroom_stretches', 'postroom_details', 'postroom_payloads', 'postroom_events',
            'postroom_statuses', 'postroom_states', 'postroom_state_counts', 'postroom_state_changes',
            'postroom_gone', 'postroom_gone_texts', 'postroom_run_losses', 'postroom_probe']) AS name
    )
    SELECT ARRAY(
        SELECT needed || ' on ' || name FROM ours, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed
        WHERE NOT has_table_privilege(id, needed) AND (name <> 'messages' OR needed IN ('SELECT', 'INSERT'))
        UNION ALL
        SELECT 'USAGE on ' || name FROM unnest(ARRAY['postroom_payload_numbers', 'postroom_event_numbers']) AS name
        WHERE NOT has_sequence_privilege(to_regclass(name)::oid, 'USAGE')
        UNION ALL
        SELECT 'EXECUTE on ' || proname::text FROM pg_proc WHERE left(proname::text, 9) = 'postroom_'
        AND pg_function_is_visible(oid) AND NOT has_function_privilege(oid, 'EXECUTE')
    ) AS lacking, ARRAY(SELECT name FROM ours WHERE row_security_active(id)) AS hiding";

/// Tables of ours that Citus manages. Only queried if Citus is installed, because its catalogue is missing otherwise.
const MANAGED: &str = "\
     SELECT c.relname::text AS name FROM pg_dist_partition p JOIN pg_class c ON c.oid = p.logicalrelid \
     WHERE pg_table_is_visible(c.oid) AND (c.relname = 'messages' OR left(c.relname::text, 9) = 'postroom_') \
     ORDER BY c.relname LIMIT 1";

/// The obstacle to creating the tables, in one sentence.
pub(super) async fn hindrance(session: &Session) -> Result<Option<&'static str>, Failure> {
    let place = "SELECT current_schema() IS NOT NULL AS is_there,
                        has_schema_privilege(current_schema(), 'CREATE') AS can_create";
    let row = session.client.query_typed_one(place, &[]).await?;
    Ok(match (row.get("is_there"), row.get("can_create")) {
        (false, _) => Some(NO_SCHEMA),
        (true, Some(false)) => Some(NO_CREATE),
        _ => None,
    })
}

/// A sentence for the operator if Citus manages a table of ours.
pub(super) async fn managed(session: &Session) -> Result<Option<String>, Failure> {
    if session.server.citus.is_none() {
        return Ok(None);
    }
    let row = session.client.query_typed_opt(MANAGED, &[]).await?;
    Ok(row.map(|row| row.get::<_, String>("name")).map(|name| {
        format!(
            "Citus manages the table {name}, and the order of arrival uses one server's transaction numbers; \
             undistribute_table('{name}') makes it an ordinary one"
        )
    }))
}

/// The obstacle to using the tables, in one sentence.
pub(super) async fn obstacle(session: &Session) -> Result<Option<String>, Failure> {
    if let Some(why) = managed(session).await? {
        return Ok(Some(why));
    }
    let row = session.client.query_typed_one(LACKING, &[]).await?;
    let (lacking, hiding): (Vec<String>, Vec<String>) = (row.get("lacking"), row.get("hiding"));
    if let Some(name) = hiding.first() {
        return Ok(Some(format!(
            "row security hides rows of {name} from this role; use a role with BYPASSRLS, or disable row \
             security on postroom's tables"
        )));
    }
    if lacking.is_empty() {
        return Ok(None);
    }
    let told = lacking[..lacking.len().min(TOLD_MAX)].join(", ");
    let more = match lacking.len().saturating_sub(TOLD_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Ok(Some(format!("the role lacks {told}{more}; grant it, or use the role that owns the tables")))
}
