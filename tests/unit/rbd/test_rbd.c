/* SPDX-License-Identifier: MIT */
/* test_rbd.c - the engine rbd with a librbd that is told what to do. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ancestors.h"
#include "fake_ceph.h"
#include "spec.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/engines/data.h"
#include "tests/unit/engines/host.h"

#define LEN 65536U

static uint8_t wrote[HOST_MAX_IO], got[HOST_MAX_IO];

static int set_up(void **state)
{
	(void)state;
	fake_reset();
	host_read_only = false;
	host_said[0] = 0;
	return 0;
}

/* ---- what a person says ---- */

static void an_image_is_named_as_ceph_does(void **state)
{
	struct spec s;
	char why[512];

	(void)state;
	assert_int_equal(spec_parse("pool/image", &s, why, sizeof(why)), 0);
	assert_string_equal(s.pool, "pool");
	assert_string_equal(s.image, "image");
	assert_string_equal(s.name_space, "");
	assert_null(s.snapshot);
	assert_int_equal(spec_parse("pool/ns/image@snap 1", &s, why, sizeof(why)), 0);
	assert_string_equal(s.name_space, "ns");
	assert_string_equal(s.image, "image");
	assert_string_equal(s.snapshot, "snap 1");
}

static void what_is_no_image_is_told(void **state)
{
	static const char *const wrong[][2] = {
		{ "image", "no pool is named" },      { "", "no pool is named" },
		{ "/image", "a name is empty" },      { "pool/", "a name is empty" },
		{ "pool//image", "a name is empty" }, { "pool/@snap", "a name is empty" },
		{ "pool/a/b/c", "too many slashes" }, { "pool/image@", "snapshot" },
		{ "pool/image@a@b", "snapshot" },     { "pool/image@a/b", "snapshot" },
		{ "rbd:pool/image", "QEMU" },
	};
	char why[512], longest[SPEC_MAX + 1];
	struct spec s;

	(void)state;
	for (unsigned int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(spec_parse(wrong[i][0], &s, why, sizeof(why)), -EINVAL);
		if (strncmp(why, wrong[i][0], strlen(wrong[i][0])) != 0 ||
		    !strstr(why, wrong[i][1]) || !strstr(why, "give POOL/IMAGE"))
			fail_msg("'%s': %s", wrong[i][0], why);
	}
	memset(longest, 'a', SPEC_MAX);
	longest[SPEC_MAX] = 0;
	longest[1] = '/';
	assert_int_equal(spec_parse(longest, &s, why, sizeof(why)), -EINVAL);
}

static void options_are_checked(void **state)
{
	static const char *const wrong[][2] = {
		{ "cache=yes", "-o cache=yes: give none, writethrough or writeback" },
		{ "connect-timeout=0", "-o connect-timeout=0: give a whole number from 1" },
		{ "connect-timeout=1s", "-o connect-timeout=1s: give" },
		{ "lock=maybe", "-o lock=maybe: give yes or no" },
		{ "id=client.admin", "-o id=client.admin: give the client's name without" },
		{ "id=", "-o id=: give" },
		{ "cluster=/etc/ceph", "-o cluster=/etc/ceph: give a cluster's name" },
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(host_open("pool/image", wrong[i][0], NULL), -EINVAL);
		if (!strstr(host_said, wrong[i][1]))
			fail_msg("%s: %s", wrong[i][0], host_said);
		assert_false(fake.connected || fake.open);
	}
}

static void options_reach_librados(void **state)
{
	(void)state;
	assert_int_equal(host_open("pool/ns/image", "keyring=/key", "cache=writethrough",
				   "connect-timeout=7", "id=me", NULL),
			 0);
	assert_string_equal(fake_conf("keyring"), "/key");
	assert_string_equal(fake_conf("rbd_cache"), "true");
	assert_string_equal(fake_conf("rbd_cache_policy"), "writethrough");
	assert_string_equal(fake_conf("client_mount_timeout"), "7");
	/* Requests wait for ever. */
	assert_string_equal(fake_conf("rados_osd_op_timeout"), "0");
	assert_true(fake.locked);
	host_close();
	assert_false(fake.connected);
}

static void what_goes_wrong_is_told(void **state)
{
	static const struct {
		int *error, value;
		const char *image, *said;
	} wrong[] = {
		{ &fake.conf_error, -ENOENT, "pool/image", "there is no /etc/ceph/ceph.conf" },
		{ &fake.connect_error, -ETIMEDOUT, "pool/image",
		  "no monitor of the cluster answers in 30 seconds (mon host = 10.0.0.9)" },
		{ &fake.connect_error, -ENOENT, "pool/image", "there is no key for client.admin" },
		{ &fake.connect_error, -EACCES, "pool/image", "ceph auth get client.admin" },
		{ &fake.connect_error, -EIO, "pool/image", "Input/output error" },
		{ &fake.open_error, -EPERM, "pool/image",
		  "ceph auth caps client.admin mon 'profile rbd' osd 'profile rbd pool=pool'" },
		{ &fake.open_error, -ETIMEDOUT, "pool/image", "OSDs do not answer in 30 seconds" },
		{ &fake.open_error, -ENOTSUP, "pool/image", "cannot be opened" },
		{ &fake.open_error, 0, "no/image", "there is no pool 'no'" },
		{ &fake.open_error, 0, "pool/no", "there is no image 'no' in pool" },
		{ &fake.open_error, 0, "pool/ns/no",
		  "there is no image 'no' in pool/ns: see \"rbd ls" },
		{ &fake.open_error, 0, "pool/no/image", "no namespace 'no'" },
		{ &fake.open_error, 0, "pool/image@no", "has no snapshot 'no'" },
		{ &fake.lock_error, -EROFS, "pool/image", "locked by the client at 10.0.0.7:0/7" },
		{ &fake.lock_error, -EPERM, "pool/image", "may not write it" },
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		fake_reset();
		*wrong[i].error = wrong[i].value;
		assert_int_not_equal(host_open(wrong[i].image, NULL), 0);
		if (!strstr(host_said, wrong[i].said) || strncmp(host_said, wrong[i].image, 4) != 0)
			fail_msg("case %u: %s", i, host_said);
		assert_false(fake.connected || fake.open);
	}
}

static void what_the_image_says_is_heeded(void **state)
{
	(void)state;
	fake.features = 0;
	assert_int_equal(host_open("pool/image", NULL), -EINVAL);
	assert_non_null(strstr(host_said, "rbd feature enable pool/image exclusive-lock"));
	assert_int_equal(host_open("pool/image", "lock=no", NULL), 0);
	assert_false(fake.locked);
	host_close();
	fake_reset();
	fake.conf_image = "rbd_cache=true";
	assert_int_equal(host_open("pool/image", NULL), -EINVAL);
	assert_non_null(strstr(host_said, "rbd config image rm"));
	assert_int_equal(host_open("pool/image", "cache=writeback", NULL), 0);
	host_close();
	fake.conf_image = "rbd_disable_zero_copy_writes=false";
	assert_int_equal(host_open("pool/image", NULL), -EINVAL);
	fake_reset();
	fake.size = 100;
	assert_int_equal(host_open("pool/image", NULL), -EINVAL);
	assert_non_null(strstr(host_said, "no bytes"));
	fake.size = 5000;
	assert_int_equal(host_open("pool/image", NULL), 0);
	assert_int_equal(target.size, 4608);
	assert_int_equal(target.preferred, 4U << 20);
	assert_true(target.volatile_cache && target.discard && target.write_zeroes);
	host_close();
}

static void who_may_only_read_takes_no_lock(void **state)
{
	(void)state;
	assert_int_equal(host_open("pool/image@snap", NULL), 0);
	assert_true(target.read_only && fake.read_only && !fake.locked);
	host_close();
	host_read_only = true;
	assert_int_equal(host_open("pool/image", NULL), 0);
	assert_true(fake.read_only && !fake.locked);
	host_close();
}

/* ---- requests ---- */

static void what_is_written_is_read(void **state)
{
	(void)state;
	assert_int_equal(host_open("pool/image", NULL), 0);
	write_and_read(200, FAKE_SIZE, fake.bytes);
	assert_true(fake.calls[FAKE_READV] && fake.calls[FAKE_WRITEV] && fake.calls[FAKE_READ]);
	assert_int_equal(fake.calls[FAKE_FLUSH], 0);
	host_close();
}

static void each_operation_is_asked_for(void **state)
{
	struct task t;

	(void)state;
	assert_int_equal(host_open("pool/image", NULL), 0);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(do_io(UBLKZC_DISCARD, 0, NULL, LEN), 0);
	assert_int_equal(do_io(UBLKZC_WRITE_ZEROES, 0, NULL, LEN), 0);
	assert_int_equal(fake.zero_flags, 0);
	begin(&t, UBLKZC_WRITE_ZEROES, 0, NULL, LEN, 0);
	assert_true(await(&t, 60));
	assert_int_equal(fake.calls[FAKE_FLUSH], 1);
	assert_int_equal(fake.calls[FAKE_DISCARD], 1);
	assert_int_equal(fake.calls[FAKE_ZEROES], 2);
	host_close();
}

/* submit() itself, as the flags must be there when it is called. */
static int submit_with(enum ublkzc_op op, bool fua, bool no_unmap)
{
	struct task t = { .rq = { .queue = &queue,
				  .op = op,
				  .len = LEN,
				  .fua = fua,
				  .no_unmap = no_unmap,
				  .iov = t.iov,
				  .nr_iov = op == UBLKZC_WRITE } };

	t.iov[0] = (struct iovec){ wrote, LEN };
	engine->submit(&t.rq);
	assert_true(await(&t, 60));
	return t.res;
}

static void fua_is_a_write_and_a_flush(void **state)
{
	(void)state;
	assert_int_equal(host_open("pool/image", NULL), 0);
	assert_int_equal(submit_with(UBLKZC_WRITE, true, false), 0);
	assert_int_equal(fake.calls[FAKE_WRITE], 1);
	assert_int_equal(fake.calls[FAKE_FLUSH], 1);
	assert_int_equal(submit_with(UBLKZC_WRITE_ZEROES, true, true), 0);
	assert_int_equal(fake.zero_flags, RBD_WRITE_ZEROES_FLAG_THICK_PROVISION);
	assert_int_equal(fake.calls[FAKE_FLUSH], 2);
	/* What was not written is not flushed. */
	fake.io_error = -ENOSPC;
	assert_int_equal(submit_with(UBLKZC_WRITE, true, false), -ENOSPC);
	assert_int_equal(fake.calls[FAKE_FLUSH], 2);
	host_close();
}

static void errors_are_the_request_s(void **state)
{
	(void)state;
	assert_int_equal(host_open("pool/image", NULL), 0);
	fake.ask_error = -EINVAL;
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), -EINVAL);
	fake.io_error = -ENOSPC;
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), -ENOSPC);
	fake.short_read = true;
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), -EIO);
	fake.io_error = -ESHUTDOWN;
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), -EIO);
	assert_non_null(strstr(host_said, "has cut this client off"));
	host_said[0] = 0;
	fake.io_error = -ESHUTDOWN;
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), -EIO);
	assert_string_equal(host_said, ""); /* said once */
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), 0);
	host_close();
}

static void a_resize_is_heard_of(void **state)
{
	uint64_t size = 0;

	(void)state;
	fake.size = LEN;
	assert_int_equal(host_open("pool/image", NULL), 0);
	fake_resize(2 * LEN);
	assert_non_null(strstr(host_said, "has 131072 bytes now"));
	assert_int_equal(engine->grow(&target, &size), 0);
	assert_int_equal(size, 2 * LEN);
	size = 3 * LEN;
	assert_int_equal(engine->grow(&target, &size), -EINVAL);
	assert_non_null(strstr(host_said, "\"rbd resize\""));
	fake_resize(512);
	assert_non_null(strstr(host_said, "made smaller, to 512 bytes"));
	host_close();
}

/* ---- servers that die ---- */

static void the_dead_are_cut_off(void **state)
{
	char first[256], second[256];

	(void)state;
	assert_int_equal(host_open("pool/image", NULL), 0);
	assert_string_equal(fake.blocklisted, "");
	host_die();
	assert_int_equal(host_open("pool/image", NULL), 0);
	assert_true(strlen(fake.blocklisted) > 1);
	snprintf(first, sizeof(first), "%s", fake.blocklisted);
	/* The next one knows of the second, and no more of the first. */
	fake.blocklisted[0] = 0;
	host_die();
	assert_int_equal(host_open("pool/image", NULL), 0);
	assert_null(strstr(fake.blocklisted, first));
	snprintf(second, sizeof(second), "%s", fake.blocklisted);
	assert_ptr_equal(strchr(second, ' '), second + strlen(second) - 1);
	host_close();
}

/* A successor that fails is not forgotten, nor is who was before it. */
static void nobody_is_forgotten(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(host_open("pool/image", NULL), 0);
	fd = dup(target.fd);
	host_die();
	fake.lock_error = -ETIMEDOUT;
	assert_int_equal(host_open("pool/image", NULL), -ETIMEDOUT);
	fake.lock_error = 0;
	fake.blocklisted[0] = 0;
	host_succeed(fd);
	assert_int_equal(host_open("pool/image", NULL), 0);
	/* Two addresses. */
	assert_ptr_not_equal(strchr(fake.blocklisted, ' '), strrchr(fake.blocklisted, ' '));
	host_close();
}

static void without_leave_to_cut_off_nothing_begins(void **state)
{
	(void)state;
	assert_int_equal(host_open("pool/image", NULL), 0);
	host_die();
	fake.blocklist_error = -EACCES;
	assert_int_equal(host_open("pool/image", NULL), -EACCES);
	assert_non_null(strstr(host_said, "may not blocklist 10.0.0.1:0/"));
	assert_non_null(strstr(host_said, "mon 'profile rbd'"));
}

/* As a monitor says to who has just come. */
static void who_is_not_known_yet_asks_again(void **state)
{
	(void)state;
	assert_int_equal(host_open("pool/image", NULL), 0);
	host_die();
	fake.stranger = 2;
	assert_int_equal(host_open("pool/image", NULL), 0);
	assert_true(strlen(fake.blocklisted) > 1);
	host_close();
}

static void what_a_cache_lost_is_told_once(void **state)
{
	(void)state;
	assert_int_equal(host_open("pool/image", "cache=writeback", NULL), 0);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_die();
	assert_int_equal(host_open("pool/image", "cache=writeback", NULL), 0);
	assert_non_null(strstr(host_said, "the next flush fails"));
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), 0);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), -EIO);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_die();
	assert_int_equal(host_open("pool/image", "cache=writethrough", NULL), 0);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_close();
}

static void addresses_outlive_their_server(void **state)
{
	char longest[300];
	int fd = ancestors_open(), err = 0;
	char *text;

	(void)state;
	assert_true(fd >= 0);
	text = ancestors_read(fd, &err);
	assert_string_equal(text, "");
	free(text);
	assert_int_equal(ancestors_add(fd, "a"), 0);
	assert_int_equal(ancestors_add(fd, "b"), 0);
	text = ancestors_read(fd, &err);
	assert_string_equal(text, "a\nb\n");
	free(text);
	assert_int_equal(ancestors_set(fd, "c"), 0);
	text = ancestors_read(fd, &err);
	assert_string_equal(text, "c\n");
	free(text);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	assert_int_equal(ancestors_add(fd, longest), -ENAMETOOLONG);
	for (err = 0; !err;)
		err = ancestors_add(fd, "0123456789012345678901234567890123456789");
	assert_int_equal(err, -EFBIG);
	close(fd);
	assert_null(ancestors_read(fd, &err));
	assert_int_equal(err, -EBADF);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define UNIT(test) cmocka_unit_test_setup(test, set_up)
		UNIT(an_image_is_named_as_ceph_does),
		UNIT(what_is_no_image_is_told),
		UNIT(options_are_checked),
		UNIT(options_reach_librados),
		UNIT(what_goes_wrong_is_told),
		UNIT(what_the_image_says_is_heeded),
		UNIT(who_may_only_read_takes_no_lock),
		UNIT(what_is_written_is_read),
		UNIT(each_operation_is_asked_for),
		UNIT(fua_is_a_write_and_a_flush),
		UNIT(errors_are_the_request_s),
		UNIT(a_resize_is_heard_of),
		UNIT(the_dead_are_cut_off),
		UNIT(nobody_is_forgotten),
		UNIT(without_leave_to_cut_off_nothing_begins),
		UNIT(who_is_not_known_yet_asks_again),
		UNIT(what_a_cache_lost_is_told_once),
		UNIT(addresses_outlive_their_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
