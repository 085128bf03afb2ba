/* SPDX-License-Identifier: MIT */
/*
 * What a keeper leaves with the service manager, and what the next one makes of it: real processes,
 * and a manager that is this one.  It keeps descriptors as systemd does, which says nothing.
 *
 * Successors are this program again ("take-over VERSION FD"), which write what they inherit into
 * the diary.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper_fixture.h"
#include "tests/unit/cmocka_all.h"

#define DEVICE 9
#define MANY 100 /* more datagrams than a socket holds that nobody reads */
#define LEFT_MAX 256
#define NR_STORED 5 /* of all kinds, with the records themselves */

/* ---- the manager ---- */

static char notify_path[sizeof(diary) + 8];
static int notify_sock;
static struct manager_fd left[LEFT_MAX];
static unsigned int nr_left;
static bool extended; /* was told to wait longer */

static void forget(const char *who)
{
	char name[MANAGER_NAME_MAX];

	snprintf(name, sizeof(name), "%s", who); /* perhaps of what goes */
	for (unsigned int i = 0; i < nr_left;) {
		if (strcmp(left[i].name, name) != 0) {
			i++;
			continue;
		}
		close(left[i].fd);
		left[i] = left[--nr_left];
	}
}

static int take_fd(struct msghdr *msg)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	int fd = -1;

	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static void obey(const char *text, int fd)
{
	const char *name = strstr(text, "FDNAME=");

	extended |= strncmp(text, "EXTEND_TIMEOUT_USEC=", 20) == 0;
	if (strncmp(text, "FDSTORE=1\n", 10) == 0) {
		assert_true(name && fd >= 0 && nr_left < LEFT_MAX);
		snprintf(left[nr_left].name, sizeof(left[0].name), "%s", name + 7);
		left[nr_left++].fd = fd;
	} else if (strncmp(text, "FDSTOREREMOVE=1\n", 16) == 0) {
		assert_non_null(name);
		forget(name + 7);
	} else if (fd >= 0) {
		close(fd); /* BARRIER=1 */
	}
}

/* One datagram, if one comes within @ms. */
static bool manage_one(int ms)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char text[256];
	struct iovec iov = { .iov_base = text, .iov_len = sizeof(text) - 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct pollfd p = { .fd = notify_sock, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, ms) <= 0)
		return false;
	n = recvmsg(notify_sock, &msg, MSG_CMSG_CLOEXEC);
	assert_true(n > 0);
	text[n] = '\0';
	obey(text, take_fd(&msg));
	return true;
}

/* Until @word is in the diary, all has been read, and as many are kept. */
static void manage_until(const char *word, unsigned int nr)
{
	char text[DIARY_MAX] = "";

	for (int i = 0; i < 6000 && !(strstr(text, word) && nr_left == nr); i++) {
		poll(NULL, 0, 10);
		read_diary(text);
		while (manage_one(0))
			;
	}
	assert_non_null(strstr(text, word));
	assert_int_equal(nr_left, nr);
}

static int fd_of(const char *name)
{
	for (unsigned int i = 0; i < nr_left; i++)
		if (strcmp(left[i].name, name) == 0)
			return left[i].fd;
	return -1;
}

/* ---- servers ---- */

static int text_fd(const char *text)
{
	int fd = memfd_create("text", MFD_CLOEXEC);

	if (write(fd, text, strlen(text)) < 0)
		return -1;
	return fd;
}

static void put(struct vault *v, enum vault_kind kind, const char *text, struct vault_record *r)
{
	int fd = text ? text_fd(text) : -1;

	*r = (struct vault_record){ .kind = kind };
	if (kind == VAULT_STATE)
		r->state.number = DEVICE;
	vault_put(v, r, fd);
	if (fd >= 0)
		close(fd);
}

static int puts_all_kinds(struct vault *v, void *arg)
{
	struct vault_record use = { .kind = VAULT_USE };
	struct vault_record r, client;

	(void)arg;
	put(v, VAULT_LOCK, "lock", &r);
	put(v, VAULT_STATE, "state", &r);
	put(v, VAULT_SOCKET, "socket", &r);
	put(v, VAULT_BACKING, "backing", &r);
	put(v, VAULT_CLIENT, "gone", &r);
	vault_drop(v, r.id);
	put(v, VAULT_CLIENT, "client", &client);
	put(v, VAULT_FILE, "file", &r);
	use.use.file = r.id;
	use.use.client = client.id;
	vault_put(v, &use, -1);
	put(v, VAULT_BUFFER, NULL, &r);
	client.client.pid = 77;
	vault_put(v, &client, -1); /* and keeps its descriptor */
	vault_ready(v, DEVICE);
	pause();
	return 0;
}

static int puts_many(struct vault *v, void *arg)
{
	struct vault_record r;

	(void)arg;
	put(v, VAULT_STATE, "state", &r);
	for (unsigned int i = 0; i < MANY; i++) {
		put(v, VAULT_FILE, "file", &r);
		if (i % 2)
			vault_drop(v, r.id);
	}
	vault_ready(v, DEVICE);
	pause();
	return 0;
}

/* What its keeper has is not all there is. */
static int goes_on_alone(struct vault *v, void *arg)
{
	struct vault_record r;

	(void)arg;
	put(v, VAULT_STATE, "state", &r);
	put(v, VAULT_CLIENT, "client", &r);
	vault_ready(v, DEVICE);
	vault_lose(v, -ENOBUFS);
	pause();
	return 0;
}

static int is_not_wanted(struct vault *v, void *arg)
{
	(void)v, (void)arg;
	write_diary("a first server");
	return EXIT_FAILURE;
}

static int successor(char **argv)
{
	struct vault v = { .fd = atoi(argv[3]) };
	struct vault_record r;
	char line[64];
	char text[16];
	int fd;

	snprintf(diary, sizeof(diary), "%s", argv[4]);
	while (vault_next(&v, &r, &fd) == 1) {
		ssize_t n = fd >= 0 ? pread(fd, text, sizeof(text) - 1, 0) : 0;

		text[n > 0 ? n : 0] = '\0';
		snprintf(line, sizeof(line), "%u:%d:%s", r.kind,
			 r.kind == VAULT_CLIENT ? r.client.pid : 0, text);
		write_diary(line);
	}
	vault_ready(&v, DEVICE);
	return 0;
}

/* ---- tests ---- */

static pid_t start(int (*serve)(struct vault *v, void *arg), const struct manager_fd *fds,
		   unsigned int nr)
{
	char *argv[] = { diary };
	struct keeper_start keeper = {
		.serve = serve,
		.argv = argv,
		.argc = 1,
		.times = KEEPER_TIMES,
		.left = fds,
		.nr_left = nr,
	};

	return start_keeper(&keeper);
}

static pid_t child_of(pid_t parent)
{
	char path[64];
	int child = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &child), 1);
	fclose(f);
	return child;
}

/* Keeper first, as a server that is alone would say so. */
static void kill_both(pid_t keeper)
{
	pid_t server = child_of(keeper);

	kill(keeper, SIGKILL);
	kill(server, SIGKILL);
	assert_int_equal(waitpid(keeper, NULL, 0), keeper);
}

static void leave_all(int (*serve)(struct vault *v, void *arg))
{
	pid_t keeper = start(serve, NULL, 0);

	manage_until("ready 9;", NR_STORED);
	kill_both(keeper);
}

static void clear_diary(void)
{
	assert_int_equal(truncate(diary, 0), 0);
}

static int setup(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	_Static_assert(sizeof(notify_path) <= sizeof(addr.sun_path), "fits");
	(void)state;
	strcpy(diary, "/tmp/test_keeper_store.XXXXXX");
	fd = mkstemp(diary);
	if (fd < 0)
		return -1;
	close(fd);
	snprintf(notify_path, sizeof(notify_path), "%s.notify", diary);
	memcpy(addr.sun_path, notify_path, sizeof(notify_path));
	notify_sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (bind(notify_sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -1;
	nr_left = 0;
	extended = false;
	return setenv("NOTIFY_SOCKET", notify_path, 1);
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < nr_left; i++)
		close(left[i].fd);
	close(notify_sock);
	unlink(notify_path);
	return unlink(diary);
}

static void both_die_and_all_is_inherited(void **state)
{
	(void)state;
	leave_all(puts_all_kinds);
	assert_int_equal(keeper_left(left, nr_left), DEVICE);
	clear_diary();
	assert_int_equal(status_of(start(is_not_wanted, left, nr_left)), 0);
	while (manage_one(0))
		;
	assert_true(extended);
	/* Not the lock, nor sockets, nor what the driver has. */
	expect_diary("1:0:state;2:0:backing;5:77:client;9:0:file;8:0:;ready 9;");
}

static void a_descriptor_that_is_missing_takes_its_record_with_it(void **state)
{
	(void)state;
	leave_all(puts_all_kinds);
	for (unsigned int i = 0; i < nr_left; i++) {
		char content[16] = "";

		if (pread(left[i].fd, content, sizeof(content) - 1, 0) > 0 &&
		    strcmp(content, "client") == 0)
			forget(left[i].name);
	}
	clear_diary();
	assert_int_equal(status_of(start(is_not_wanted, left, nr_left)), 0);
	expect_diary("1:0:state;2:0:backing;9:0:file;ready 9;"); /* nor its uses */
}

static void a_descriptor_without_a_record_is_forgotten(void **state)
{
	(void)state;
	leave_all(puts_all_kinds);
	snprintf(left[nr_left].name, sizeof(left[0].name), "abc");
	left[nr_left++].fd = text_fd("whose?");
	clear_diary();
	assert_int_equal(status_of(start(is_not_wanted, left, nr_left)), 0);
	while (manage_one(0))
		;
	assert_int_equal(fd_of("abc"), -1);
	expect_diary("1:0:state;2:0:backing;5:77:client;9:0:file;8:0:;ready 9;");
}

static void nobody_knows_which_of_two_is_meant(void **state)
{
	(void)state;
	leave_all(puts_all_kinds);
	for (unsigned int i = 0, nr = nr_left; i < nr; i++) {
		char content[16] = "";

		if (pread(left[i].fd, content, sizeof(content) - 1, 0) <= 0 ||
		    strcmp(content, "file") != 0)
			continue;
		left[nr_left] = left[i];
		left[nr_left++].fd = text_fd("other");
	}
	clear_diary();
	assert_int_equal(status_of(start(is_not_wanted, left, nr_left)), 0);
	expect_diary("1:0:state;2:0:backing;5:77:client;ready 9;");
}

static void other_records_are_not_understood(void **state)
{
	uint32_t version = VAULT_VERSION + 1;

	(void)state;
	assert_int_equal(keeper_left(left, nr_left), -ENOENT);
	leave_all(puts_all_kinds);
	assert_int_equal(pwrite(fd_of("records"), &version, sizeof(version), 8), sizeof(version));
	assert_int_equal(keeper_left(left, nr_left), -EPROTO);
}

static void incomplete_records_are_taken_back(void **state)
{
	pid_t keeper = start(goes_on_alone, NULL, 0);

	(void)state;
	manage_until("ready 9;", 0);
	kill(child_of(keeper), SIGKILL);
	assert_int_equal(status_of(keeper), EXIT_WAITS);
}

/* Nothing is lost, and the server is not held up by it. */
static void a_manager_may_be_slow(void **state)
{
	char text[DIARY_MAX] = "";
	pid_t keeper = start(puts_many, NULL, 0);

	(void)state;
	for (int i = 0; i < 6000 && !strstr(text, "ready 9;"); i++) {
		poll(NULL, 0, 10);
		read_diary(text);
	}
	assert_non_null(strstr(text, "ready 9;"));
	manage_until("ready 9;", 2 + MANY / 2);
	kill_both(keeper);
}

/* As if there were no manager. */
static void a_manager_may_be_gone(void **state)
{
	pid_t keeper;

	(void)state;
	unlink(notify_path);
	keeper = start(puts_all_kinds, NULL, 0);
	manage_until("ready 9;", 0);
	kill_both(keeper);
	close(open(notify_path, O_CREAT | O_RDWR | O_CLOEXEC, 0600)); /* to be removed */
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(both_die_and_all_is_inherited),
		T(a_descriptor_that_is_missing_takes_its_record_with_it),
		T(a_descriptor_without_a_record_is_forgotten),
		T(nobody_knows_which_of_two_is_meant),
		T(other_records_are_not_understood),
		T(incomplete_records_are_taken_back),
		T(a_manager_may_be_slow),
		T(a_manager_may_be_gone),
	};

	if (argc > 4 && strcmp(argv[1], "take-over") == 0)
		return successor(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
