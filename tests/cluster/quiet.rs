//! Panics of threads that are watched say nothing; what they said is kept for who asks.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// From now on a panic of this thread is kept and not printed.
pub fn hush() {
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if SAID.with_borrow(Option::is_none) {
                return before(info);
            }
            SAID.set(Some(info.to_string()));
        }));
    });
    SAID.set(Some(String::new()));
}

/// What a panic of this thread said.
pub fn why(payload: &(dyn Any + Send)) -> String {
    let said = SAID.with_borrow(|said| said.clone().unwrap_or_default());
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()));
    if said.is_empty() { text.unwrap_or_default() } else { said }
}
