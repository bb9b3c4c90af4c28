//! The search index of PostgreSQL: merged, compared, and correct for any tuple ids of its texts.

use super::*;
use crate::postgres::{Connector, tuple_ids};

#[test]
fn stretches_of_the_search_index_are_merged_and_compared_with_the_messages() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let Database::Postgres(server) = on_server(&url) else { unreachable!("it is PostgreSQL") };
    let findings = || crate::postgres::audit(&server, true).unwrap().findings;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&config(on_server(&url)));
        let (deadline, mut stored) = (std::time::Instant::now() + Duration::from_secs(60), 0);
        while cluster::sql(&url, "SELECT count(*) FROM postroom_stretches WHERE level >= 2") == "0" {
            assert!(std::time::Instant::now() < deadline, "nothing was merged");
            let batch =
                (0..5).map(|at| message(&format!("m{}", stored + at), "+1", "2025-01-15T10:00:00Z", Some("a word")));
            file(&store, batch.collect()).await;
            stored += 5;
            let filter = Filter { search: Some(Needle::new("WORD")), ..Filter::default() };
            let request = PageRequest { filter, ..all(1) };
            assert_eq!(
                store.page(request).await.unwrap().total,
                stored,
                "each is found once, before and after a merge"
            );
        }
        store.close();
    });
    assert_eq!(findings(), [""; 0]);
    for damage in [
        "UPDATE postroom_runs SET texts = texts + 1 WHERE ctid = (SELECT min(ctid) FROM postroom_runs)",
        "DELETE FROM postroom_runs WHERE ctid = (SELECT min(ctid) FROM postroom_runs)",
        // The number of the first text in the posting list.
        "UPDATE postroom_runs SET numbers = set_byte(numbers, 1, get_byte(numbers, 1) + 1)
         WHERE ctid = (SELECT min(ctid) FROM postroom_runs)",
        "DELETE FROM postroom_folded WHERE number = 1",
        "UPDATE postroom_folded SET ts = '' WHERE number = 1",
        "UPDATE postroom_folded SET folded = '' WHERE number = 1",
        "UPDATE postroom_search SET texts = texts + 1",
    ] {
        for table in ["runs", "folded", "search"] {
            cluster::sql(&url, &format!("CREATE TABLE IF NOT EXISTS kept_{table} AS SELECT * FROM postroom_{table}"));
        }
        cluster::sql(&url, damage);
        assert_eq!(findings().len(), 1, "{damage}");
        for table in ["runs", "folded", "search"] {
            let restored =
                format!("DELETE FROM postroom_{table}; INSERT INTO postroom_{table} SELECT * FROM kept_{table}");
            cluster::sql(&url, &restored);
        }
        assert_eq!(findings(), [""; 0]);
    }
}

#[test]
fn texts_are_found_where_they_were_written_and_where_they_are() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let Database::Postgres(server) = on_server(&url) else { unreachable!("it is PostgreSQL") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&config(on_server(&url)));
        let texts = |at: usize| if at.is_multiple_of(16) { format!("a word {at}") } else { "nothing".to_owned() };
        let message = |at| message(&format!("m{at:02}"), "+1", "2025-01-15T10:00:00Z", Some(&texts(at)));
        for at in 0..80 {
            file(&store, vec![message(at)]).await;
        }
        let (deadline, behind) =
            (std::time::Instant::now() + Duration::from_secs(60), "SELECT count(*) < 78 FROM postroom_folded");
        while cluster::sql(&url, behind) == "t" {
            assert!(std::time::Instant::now() < deadline, "not everything was indexed");
        }
        let found = async |term: &str, filter: Filter| {
            let filter = Filter { search: Some(Needle::new(term)), ..filter };
            let request = PageRequest { filter, ..all(9) };
            let page = store.page(request).await.unwrap();
            (page.total, page.messages.into_iter().map(|message| message.id).collect::<Vec<_>>())
        };
        let all = (5, ["m00", "m16", "m32", "m48", "m64"].map(str::to_owned).to_vec());
        let session = Connector::new(Arc::new(*server)).unwrap().connect().await.unwrap();
        // The number of texts at their recorded tuple ids.
        let placed = async || {
            let rows =
                session.client.query("SELECT number, ctid FROM postroom_folded ORDER BY number", &[]).await.unwrap();
            let mut there = 0;
            for row in &rows {
                let said =
                    tuple_ids::of(&session.client, test_steps::SMALL.place_chunk_bits, &[row.get(0)]).await.unwrap();
                there += usize::from(said == [row.get(1)]);
            }
            (there, rows.len())
        };
        let (there, known) = placed().await;
        assert_eq!(there, known, "every text is noted");
        for (damage, is_elsewhere) in [
            ("SELECT 1", false),
            ("UPDATE postroom_folded SET folded = folded WHERE number % 2 = 0", true),
            // Afterwards other texts are at the recorded tuple ids.
            ("VACUUM FULL postroom_folded", true),
            ("UPDATE postroom_places SET places = set_byte(places, 1, get_byte(places, 1) + 1)", true),
            ("DELETE FROM postroom_places WHERE chunk > 2", true),
        ] {
            cluster::sql(&url, damage);
            assert_eq!(placed().await.0 < known, is_elsewhere, "{damage}");
            // The index decides the second term alone, and the texts are not checked.
            for term in ["WORD", "wor"] {
                assert_eq!(found(term, Filter::default()).await, all, "{term} after {damage}");
                let nobody = Filter { from: Some("+2".to_owned()), ..Filter::default() };
                assert_eq!(found(term, nobody).await.0, 0, "{term} after {damage}");
                let to = Filter { to: Some("+1".to_owned()), ..Filter::default() };
                assert_eq!(found(term, to).await, all, "{term} after {damage}");
            }
        }
        store.close();
    });
}
