//! `demo`: what the README promises.

use super::world::World;

#[test]
fn the_demo_does_what_it_says_and_cleans_up() {
    let world = World::empty();
    std::fs::create_dir(world.path("tmp")).unwrap();
    let mut command = world.command(&["demo"]);
    command.env("TMPDIR", world.path("tmp"));
    let answer = super::world::answer(command, b"").expect(0);
    for text in ["disable  -> done", "delete   -> done", "commit refused", "as it should"] {
        assert!(answer.out.contains(text), "`{text}` not in {}", answer.both());
    }
    assert_eq!(std::fs::read_dir(world.path("tmp")).unwrap().count(), 0);
}
