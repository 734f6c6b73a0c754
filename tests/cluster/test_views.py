"""What policies are shown of live workers: the last sample, as old as it is."""

from helpers.cluster.views import TelemetryViews


def made(delay_s=0.0):
    return TelemetryViews(["prefill", "decode", "mixed"], [10, 20, 30], delay_s)


def test_before_a_sample_a_worker_looks_idle_and_as_old_as_the_run():
    views = made()
    views.now = 2.0
    assert views[1] == (1, "decode", 2.0, 0, 0, 0, 0, 0, 20)


def test_a_sample_ages():
    views = made()
    views.show(0, 1.0, [3, 2, 150, 400, 7])
    views.now = 1.25
    assert views[0] == (0, "prefill", 0.25, 3, 2, 150, 400, 7, 10)
    views.now = 4.0
    assert views[0].age_s == 3.0
    views.show(0, 3.5, [1, 0, 0, 90, 2])
    assert (views[0].running, views[0].age_s) == (1, 0.5)
    assert views[2].age_s == 4.0  # control: nobody has said anything of this one


def test_a_delay_holds_samples_back():
    views = made(delay_s=0.5)
    views.show(0, 1.0, [3, 0, 0, 0, 0])
    views.show(0, 1.2, [4, 0, 0, 0, 0])
    seen = []
    for now in (1.4, 1.5, 1.69, 1.7):
        views.now = now
        seen.append(views[0].running)
    assert seen == [0, 3, 3, 4]


def test_roles_and_losses_decide_who_takes_what():
    views = made()
    assert (views.prefill, views.decode) == ((0, 2), (1, 2))
    views.refresh([True, False, True])
    assert (views.prefill, views.decode) == ((0, 2), (2,))
