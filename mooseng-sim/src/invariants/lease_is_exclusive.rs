//! *While a master may answer reads, nobody leads in a later term* (Ongaro §6.4.1): a deposed leader never answers from
//! memory, as long as clocks run as evenly as the leases allow for.

/// `master` may answer reads in `term`; `latest` is the highest term in which anybody has led.
pub(crate) fn lease_is_exclusive(master: u64, term: u64, latest: u64) -> Option<String> {
    (latest > term).then(|| {
        format!("lease_is_exclusive: master {master} answers reads in term {term}, while another leads in {latest}")
    })
}
