/* SPDX-License-Identifier: MIT */
/* Memory that is taken away from under code that touches it. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/memory/guard.h"
#include "server/memory/rescue.h"
#include "tests/unit/cmocka_all.h"

#define PAGE 4096U
#define LEN (64U * PAGE)
#define THREADS 8U

static struct registry *registry;
static struct buffer_view view;
static int fd;

static int set_up(void **state)
{
	(void)state;
	registry = calloc(1, sizeof(*registry));
	fd = memfd_create("client", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, LEN), 0);
	view = (struct buffer_view){ .len = LEN };
	view.base = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(view.base, MAP_FAILED);
	memset(view.base, 0x5a, LEN);
	assert_int_equal(registry_publish(registry, 7, &view), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	signal(SIGBUS, SIG_DFL);
	munmap(view.base, LEN);
	close(fd);
	free(registry);
	return 0;
}

/* In the test: cmocka has handlers of its own before it. */
static void open_rescue(void)
{
	assert_int_equal(rescue_open(registry), 0);
}

static uint8_t touch(size_t at)
{
	return *(volatile uint8_t *)(view.base + at);
}

static void expect_rescued(void)
{
	struct buffer_view seen;

	assert_int_equal(registry_rescues(registry), 1);
	assert_false(registry_view(registry, 7, &seen));
	assert_false(registry_any(registry));
}

static void what_is_truncated_reads_as_zeroes_and_is_withdrawn(void **state)
{
	(void)state;
	open_rescue();
	assert_int_equal(touch(PAGE), 0x5a);
	assert_int_equal(registry_rescues(registry), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(touch(PAGE), 0);
	expect_rescued();
	/* All of it, writable too, and the file is as it was. */
	memset(view.base, 1, LEN);
	assert_int_equal(lseek(fd, 0, SEEK_END), 0);
}

static void a_hole_in_guarded_memory_costs_its_owner_nothing(void **state)
{
	void *base;
	int guard;
	(void)state;

	if (!guard_works())
		skip();
	open_rescue();
	munmap(view.base, LEN);
	assert_int_equal(guard_map(fd, 0, LEN, PROT_READ | PROT_WRITE, &base, &guard), 0);
	assert_int_equal(guard, 0);
	view.base = base;
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE), 0);
	assert_int_equal(touch(0), 0x5a);
	assert_int_equal(touch(PAGE), 0);
	expect_rescued();
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), PAGE); /* it still is one */
}

static pthread_barrier_t barrier;

/* All write to the same places at once, and a handler maps under them: that is the test. */
__attribute__((no_sanitize("thread"))) static void *toucher(void *arg)
{
	size_t first = (size_t)arg;

	pthread_barrier_wait(&barrier);
	for (size_t page = 0; page < LEN / PAGE; page++)
		view.base[(first + page) % (LEN / PAGE) * PAGE] = 1;
	return NULL;
}

static void threads_at_once_all_go_on(void **state)
{
	pthread_t threads[THREADS];
	struct buffer_view seen;
	(void)state;

	open_rescue();
	for (unsigned int turn = 0; turn < 50; turn++) {
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
		for (size_t i = 0; i < THREADS; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, toucher, (void *)i), 0);
		for (size_t i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		pthread_barrier_destroy(&barrier);
		assert_true(registry_rescues(registry) > turn);
		assert_false(registry_view(registry, 7, &seen));
		assert_int_equal(ftruncate(fd, LEN), 0);
		assert_ptr_equal(
			mmap(view.base, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0),
			view.base);
		assert_int_equal(registry_publish(registry, 7, &view), 0);
	}
}

static atomic_bool stop;

/* Other clients' buffers, on the control thread: each is freed as soon as it is withdrawn. */
static void *come_and_go(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		struct buffer_view *other = malloc(sizeof(*other));

		*other = (struct buffer_view){ .base = (uint8_t *)PAGE, .len = PAGE };
		assert_int_equal(registry_publish(registry, 3, other), 0);
		registry_withdraw(registry, 3);
		registry_wait(registry);
		other->len = UINT64_MAX; /* whoever still looks takes it for all memory */
		other->base = NULL;
		free(other);
	}
	return NULL;
}

static void others_buffers_may_come_and_go_meanwhile(void **state)
{
	pthread_t thread;
	(void)state;

	open_rescue();
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, come_and_go, NULL), 0);
	for (unsigned int turn = 0; turn < 500; turn++) {
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(touch(PAGE), 0);
		assert_int_equal(registry_rescues(registry), turn + 1);
		assert_int_equal(ftruncate(fd, LEN), 0);
		assert_ptr_equal(
			mmap(view.base, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0),
			view.base);
		assert_int_equal(registry_publish(registry, 7, &view), 0);
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
}

static void the_control_thread_is_woken(void **state)
{
	struct registry_alarm alarm = { .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	uint64_t rings = 0;
	(void)state;

	open_rescue();
	registry->alarm = &alarm;
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(touch(0), 0);
	assert_int_equal(read(alarm.fd, &rings, sizeof(rings)), sizeof(rings));
	assert_int_equal(rings, 1);
	close(alarm.fd);
}

/* What a child that does @what ends with: its signal, or 0. */
static int signal_of_child(void (*what)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		what();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void touch_other_memory(void)
{
	int other = memfd_create("other", MFD_CLOEXEC);
	const volatile uint8_t *at = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, other, 0);

	(void)*at;
}

static void be_sent_one(void)
{
	kill(getpid(), SIGBUS);
}

static void any_other_sigbus_is_what_it_always_was(void **state)
{
	(void)state;
	open_rescue();
	assert_int_equal(signal_of_child(touch_other_memory), SIGBUS);
	assert_int_equal(signal_of_child(be_sent_one), SIGBUS);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(what_is_truncated_reads_as_zeroes_and_is_withdrawn),
		T(a_hole_in_guarded_memory_costs_its_owner_nothing),
		T(threads_at_once_all_go_on),
		T(others_buffers_may_come_and_go_meanwhile),
		T(the_control_thread_is_woken),
		T(any_other_sigbus_is_what_it_always_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
