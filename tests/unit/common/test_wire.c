/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/wire.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/common/old_peer.h"
#include "tests/unit/common/vectors.h"

static struct wire_request valid(enum wire_type type)
{
	struct wire_request req;

	wire_request_init(&req, type, 7);
	return req;
}

static enum wire_reason judge(const struct wire_request *req, size_t len, unsigned int nr_fds)
{
	struct wire_request out;
	enum wire_reason reason;
	int ret = wire_request_decode(req, len, nr_fds, &out, &reason);

	assert_int_equal(ret, reason == WIRE_OK ? 0 : -EPROTO);
	return reason;
}

static void accepts_each_type_with_its_descriptors(void **state)
{
	static const unsigned int fds[WIRE_TYPES] = { [WIRE_HELLO] = 1, [WIRE_ADD] = 1 };

	(void)state;
	for (int type = WIRE_HELLO; type < WIRE_TYPES; type++) {
		struct wire_request req = valid(type);

		assert_int_equal(judge(&req, sizeof(req), fds[type]), WIRE_OK);
		assert_int_equal(judge(&req, sizeof(req), fds[type] + 1), WIRE_BAD_FDS);
		if (fds[type])
			assert_int_equal(judge(&req, sizeof(req), 0), WIRE_BAD_FDS);
	}
}

static void refuses_any_other_length(void **state)
{
	struct wire_request req[2] = { valid(WIRE_PING), valid(WIRE_PING) };

	(void)state;
	for (size_t len = 0; len <= sizeof(req); len++)
		if (len != sizeof(req[0]))
			assert_int_equal(judge(req, len, 0), WIRE_BAD_MESSAGE);
}

static void refuses_what_it_does_not_know(void **state)
{
	struct wire_request req = valid(WIRE_PING);

	(void)state;
	req.magic++;
	assert_int_equal(judge(&req, sizeof(req), 0), WIRE_BAD_MESSAGE);
	req = valid(WIRE_PING);
	req.version++;
	assert_int_equal(judge(&req, sizeof(req), 0), WIRE_BAD_VERSION);
	req = valid(WIRE_ADD);
	req.flags = 2;
	assert_int_equal(judge(&req, sizeof(req), 1), WIRE_BAD_MESSAGE);
}

/* Every byte that a type does not use must be zero. */
static void refuses_unused_fields(void **state)
{
	(void)state;
	for (size_t at = offsetof(struct wire_request, flags); at < sizeof(struct wire_request);
	     at++) {
		struct wire_request req = valid(WIRE_PING);

		((uint8_t *)&req)[at] = 1;
		assert_int_equal(judge(&req, sizeof(req), 0), WIRE_BAD_MESSAGE);
	}
}

static void sends_and_receives_descriptors(void **state)
{
	struct wire_request req = valid(WIRE_HELLO);
	struct wire_request got;
	int fds[WIRE_FDS_MAX];
	unsigned int nr;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(wire_send(pair[0], &req, sizeof(req), 0), 0);
	assert_int_equal(wire_recv(pair[1], &got, sizeof(got), fds, &nr), sizeof(got));
	assert_int_equal(nr, 1);
	assert_memory_equal(&got, &req, sizeof(got));
	assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	close(fds[0]);
	close(pair[0]);
	assert_int_equal(wire_recv(pair[1], &got, sizeof(got), fds, &nr), 0);
	assert_int_equal(wire_send(pair[1], &req, sizeof(req), -1), -EPIPE);
	close(pair[1]);
}

static int lowest_free_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static void too_many_descriptors_are_closed(void **state)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(5 * sizeof(int))];
	} control = { 0 };
	char sent = 'x';
	struct iovec iov = { &sent, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[WIRE_FDS_MAX];
	unsigned int nr;
	int free_before;
	char byte;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	free_before = lowest_free_fd();
	for (int count = 2; count <= 5; count++) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		memset(CMSG_DATA(cmsg), 0, (size_t)count * sizeof(int));
		assert_int_equal(sendmsg(pair[0], &msg, 0), 1);
		assert_int_equal(wire_recv(pair[1], &byte, 1, fds, &nr), 1);
		assert_int_equal(nr, WIRE_FDS_MAX + 1);
		assert_int_equal(lowest_free_fd(), free_before);
	}
	close(pair[0]);
	close(pair[1]);
}

/* It looks like the end of the connection, and nobody would look for descriptors. */
static void an_empty_record_leaves_no_descriptor(void **state)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int fds[WIRE_FDS_MAX];
	unsigned int nr;
	int free_before;
	char byte;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	free_before = lowest_free_fd();
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	assert_int_equal(sendmsg(pair[0], &msg, 0), 0);
	assert_int_equal(wire_recv(pair[1], &byte, 1, fds, &nr), 0);
	assert_int_equal(nr, 0);
	assert_int_equal(lowest_free_fd(), free_before);
	close(pair[0]);
	close(pair[1]);
}

static void replies_are_checked(void **state)
{
	struct wire_reply reply, out;

	(void)state;
	wire_reply_init(&reply, WIRE_ADD, 3);
	assert_int_equal(wire_reply_decode(&reply, sizeof(reply), &out), 0);
	assert_int_equal(wire_reply_decode(&reply, sizeof(reply) - 1, &out), -EPROTO);
	reply.status = 1;
	assert_int_equal(wire_reply_decode(&reply, sizeof(reply), &out), -EPROTO);
}

/* ---- docs/wire-vectors ---- */

static struct wire_request request_of(const struct vector *v)
{
	struct wire_request req;

	wire_request_init(&req, (enum wire_type)vector_field(v, "type"),
			  (uint32_t)vector_field(v, "seq"));
	req.flags = (uint32_t)vector_field(v, "flags");
	req.offset = (uint64_t)vector_field(v, "offset");
	req.length = (uint64_t)vector_field(v, "length");
	req.index = (uint32_t)vector_field(v, "index");
	req.pid = (uint32_t)vector_field(v, "pid");
	return req;
}

static struct wire_reply reply_of(const struct vector *v)
{
	struct wire_reply reply;

	wire_reply_init(&reply, (uint16_t)vector_field(v, "type"),
			(uint32_t)vector_field(v, "seq"));
	if (vector_field(v, "version"))
		reply.version = (uint16_t)vector_field(v, "version");
	reply.status = (int32_t)vector_field(v, "status");
	reply.reason = (uint16_t)vector_field(v, "reason");
	reply.index = (uint32_t)vector_field(v, "index");
	reply.device = (uint32_t)vector_field(v, "device");
	reply.max_buffers = (uint32_t)vector_field(v, "max_buffers");
	reply.max_bytes = (uint64_t)vector_field(v, "max_bytes");
	reply.pid = (uint32_t)vector_field(v, "pid");
	reply.processes = (uint32_t)vector_field(v, "processes");
	reply.refused = (uint32_t)vector_field(v, "refused");
	reply.features = (uint32_t)vector_field(v, "features");
	reply.user = (uint32_t)vector_field(v, "user");
	return reply;
}

static void check_request(const struct vector *v)
{
	struct wire_request want = request_of(v), got;
	enum wire_reason reason;
	int ret = wire_request_decode(v->bytes, v->len, v->nr_fds, &got, &reason);

	if (v->verdict == VECTOR_ACCEPTED) {
		assert_int_equal(ret, 0);
		assert_int_equal(reason, WIRE_OK);
		assert_memory_equal(&got, &want, sizeof(got));
		assert_memory_equal(v->bytes, &want, sizeof(want));
		return;
	}
	assert_int_equal(ret, v->verdict == VECTOR_DECLINED ? -EOPNOTSUPP : -EPROTO);
	assert_int_equal(reason, v->verdict == VECTOR_DECLINED ? WIRE_NO_FEATURE : v->reason);
	/* The refusal can be addressed. */
	assert_int_equal(got.type, want.type);
	assert_int_equal(got.seq, want.seq);
}

/* All that is read, and not the bytes that are overlooked. */
static void assert_same_reply(const struct wire_reply *a, const struct wire_reply *b)
{
	struct wire_reply x = *a, y = *b;

	x.pad = y.pad = 0;
	memset(x.reserved, 0, sizeof(x.reserved));
	memset(y.reserved, 0, sizeof(y.reserved));
	assert_memory_equal(&x, &y, sizeof(x));
}

static void check_reply(const struct vector *v)
{
	struct wire_reply want = reply_of(v), got;
	int ret = wire_reply_decode(v->bytes, v->len, &got);

	if (v->verdict == VECTOR_MALFORMED) {
		assert_int_equal(ret, -EPROTO);
		return;
	}
	assert_int_equal(ret, 0);
	assert_same_reply(&got, &want);
	if (!v->loosely)
		assert_memory_equal(v->bytes, &want, sizeof(want));
}

static void check_vector(const struct vector *v)
{
	print_message("%s\n", v->name);
	if (v->reply)
		check_reply(v);
	else
		check_request(v);
}

static void means_what_the_specification_says(void **state)
{
	(void)state;
	assert_true(vectors_each(check_vector) >= 80);
}

/* What is newer is not sent to whoever does not ask for it: all else the older side takes. */
static void check_old(const struct vector *v)
{
	bool newer = strstr(v->name, "tomorrow") != NULL || v->verdict == VECTOR_DECLINED ||
		     vector_field(v, "type") > OLD_LAST_TYPE;

	if (newer)
		return;
	if (v->reply && v->verdict == VECTOR_ACCEPTED)
		assert_true(old_shim_reads(v->bytes, v->len));
	else if (v->verdict == VECTOR_ACCEPTED)
		assert_int_equal(old_server_refuses(v->bytes, v->len, v->nr_fds), 0);
	else if (v->verdict == VECTOR_REFUSED)
		assert_int_equal(old_server_refuses(v->bytes, v->len, v->nr_fds), v->reason);
}

static void means_the_same_to_older_peers(void **state)
{
	(void)state;
	vectors_each(check_old);
}

static void every_reason_has_words(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < WIRE_REASONS; i++)
		assert_non_null(wire_reason_text(i));
	assert_string_equal(wire_reason_text(WIRE_REASONS), "unknown reason");
	assert_string_equal(wire_reason_text(UINT16_MAX), "unknown reason");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_each_type_with_its_descriptors),
		cmocka_unit_test(refuses_any_other_length),
		cmocka_unit_test(refuses_what_it_does_not_know),
		cmocka_unit_test(refuses_unused_fields),
		cmocka_unit_test(sends_and_receives_descriptors),
		cmocka_unit_test(too_many_descriptors_are_closed),
		cmocka_unit_test(an_empty_record_leaves_no_descriptor),
		cmocka_unit_test(replies_are_checked),
		cmocka_unit_test(every_reason_has_words),
		cmocka_unit_test(means_what_the_specification_says),
		cmocka_unit_test(means_the_same_to_older_peers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
