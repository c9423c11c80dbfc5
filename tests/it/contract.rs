//! What every storage of the registry does, told through the registry's methods alone. Each case
//! gets a factory; a second storage is run through all of them by one more line at the end.

mod holders;
mod imports;
mod keys;
mod leaks;
mod upkeep;

use jiff::Timestamp;
use leakwarden::clock::from_millis;
use leakwarden::registry::access::Caller;
use leakwarden::registry::key::{Arrival, Class, Key, KeyKind, LeakAction};
use leakwarden::registry::{Added, Material, NewKey, Registry, RegistryError, Setup};
use leakwarden::secret::{Secret, identity_hash, to_hex};
use tempfile::TempDir;

/// A registry of its own.
pub struct Fresh {
    pub registry: Registry,
    /// Whatever it lies in; goes with it. Copies and filters are written there, too.
    pub folder: TempDir,
}

/// Makes one; what tells one storage from another.
pub type Make = fn() -> Fresh;

fn sqlite() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let setup =
        Setup { account: "main".into(), admin: "admin@example.com".into(), actor: "op".into() };
    let registry = Registry::init(&folder.path().join("registry"), &setup, at(0)).unwrap();
    Fresh { registry, folder }
}

/// So many seconds after the registry was made.
pub fn at(seconds: i64) -> Timestamp {
    from_millis(1_700_000_000_000 + seconds * 1_000)
}

pub fn operator() -> Caller {
    Caller::operator("op")
}

/// A key of 44 characters without a prefix, always the same one for a number; nobody's.
pub fn text(number: u32) -> String {
    let digits = to_hex(&identity_hash(&[&number.to_le_bytes()]));
    format!("{}-_zY{}", &digits[..30], &digits[30..40])
}

pub fn material(number: u32) -> Material {
    Material::Plain(Secret::copy_of(text(number).as_bytes()))
}

/// A key as `key register` takes it.
pub fn registered<'a>(name: &'a str, owner: &'a str) -> NewKey<'a> {
    NewKey {
        name,
        description: "",
        owner,
        kind: KeyKind::User,
        class: Class::Live,
        service: "",
        leak_action: LeakAction::Disable,
        locked: false,
        expires_at: None,
        homes: &[],
        executor: Key::OWN_EXECUTOR,
        arrival: Arrival::Registered,
        origin: "",
        remote_id: None,
        import: None,
        replaces: None,
        hint: "…",
    }
}

impl Fresh {
    /// Adds the key with that number.
    pub fn add(&mut self, number: u32, new: &NewKey<'_>) -> Result<Added, RegistryError> {
        self.registry.write(|tx| tx.add_key(new, &material(number), &operator(), at(1)))
    }

    /// Adds Ann's key with that number, named after it, and answers it.
    pub fn key(&mut self, number: u32) -> Key {
        let name = format!("key {number}");
        let added = self.add(number, &registered(&name, "ann@example.com")).unwrap();
        self.known(&added.id)
    }

    pub fn known(&mut self, id: &str) -> Key {
        self.registry.read(|tx| tx.key(id)).unwrap()
    }

    /// Somebody with that address, acting as themselves.
    pub fn caller(&mut self, email: &str) -> Caller {
        let account = self.account();
        self.registry.write(|tx| tx.user(&account, email, &operator(), at(0))).unwrap();
        self.registry.read(|tx| tx.caller("os", Some(email), Some(&account))).unwrap()
    }

    /// Id of the first account.
    pub fn account(&mut self) -> String {
        let accounts = self.registry.read(|tx| tx.accounts(&operator())).unwrap();
        accounts.iter().find(|account| account.name == "main").unwrap().id.clone()
    }
}

/// The words of a refusal.
#[track_caller]
pub fn refusal<T>(answer: Result<T, RegistryError>) -> String {
    match answer {
        Err(
            error @ (RegistryError::Refused(_)
            | RegistryError::Unfit(_)
            | RegistryError::NotFound(_)),
        ) => error.to_string(),
        Err(other) => panic!("not refused, but: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

macro_rules! contract {
    ($($storage:ident: $($module:ident { $($case:ident)+ })+;)+) => {
        $(mod $storage {
            $(mod $module {
                $(#[test]
                fn $case() {
                    super::super::super::$module::$case(super::super::super::$storage);
                })+
            })+
        })+
    };
}

macro_rules! every_case_on {
    ($($storage:ident)+) => {
        mod on {
            contract! {
                $($storage:
                    keys {
                        a_key_is_found_by_its_digest_in_every_state
                        a_key_comes_once_and_only_if_it_is_fit
                        a_list_shows_what_the_filter_wants_by_name
                        a_successor_names_the_key_it_replaces
                        a_name_means_one_live_key
                        an_update_with_a_stale_version_is_refused
                        an_update_says_what_was_and_what_is
                        a_lock_refuses_changes_and_deletion
                        deleting_leaves_a_tombstone
                        an_expired_key_is_invalid_from_that_moment
                        classic_keys_have_less
                        uses_are_counted
                        what_is_refused_leaves_nothing_behind
                    }
                    holders {
                        an_identity_has_so_many_keys_and_no_more
                        identities_are_found_by_id_name_and_address
                        an_identity_with_live_keys_stays
                        rights_come_from_grants_ownership_and_hierarchy
                        accounts_do_not_see_each_other
                        settings_change_with_a_version
                        homes_are_of_a_key_an_identity_or_an_account
                    }
                    imports {
                        a_source_updates_by_remote_id_and_misses_what_it_did_not_name
                        hashes_come_without_keys
                        many_come_in_one_transaction
                    }
                    leaks {
                        a_sighting_opens_one_incident_and_is_told_once
                        what_cannot_be_done_is_told_to_admins
                        what_was_decided_while_acting_waits_when_only_observing
                        a_mail_that_may_have_arrived_twice_is_given_up
                        what_nobody_owned_is_remembered_and_raised
                        what_an_import_makes_known_is_held
                        an_end_by_hand_stops_what_is_to_be_done
                        offsets_go_with_what_was_found_before_them
                        watches_read_again_what_strangers_may_be_in
                        home_is_no_leak
                        homes_are_where_links_lead_now
                    }
                    upkeep {
                        the_audit_log_is_a_chain
                        a_filter_follows_what_is_registered
                        a_filter_that_leaves_knows_live_keys_only
                        a_new_pepper_needs_no_plain_key
                        a_copy_is_whole
                        settings_stay
                        readers_see_one_state
                    };
                )+
            }
        }
    };
}

every_case_on!(sqlite);
