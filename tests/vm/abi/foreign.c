/* SPDX-License-Identifier: MIT */
/* foreign.c - see foreign.h. */
#include "foreign.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static int serve_stored(struct abi_server *s, const struct ublksrv_io_desc *iod, uint16_t tag)
{
	struct foreign *f = (struct foreign *)s;
	uint8_t *at = f->stored + ((iod->start_sector << 9) - ABI_TEST_OFFSET);
	uint32_t bytes = iod->nr_sectors << 9;
	bool reads = ublksrv_get_op(iod) == UBLK_IO_OP_READ;

	s->last_op_flags = iod->op_flags;
	s->last_addr = iod->addr;
	if (iod->op_flags & UAPI_IO_F_SHMEM_ZC) {
		uint8_t *mem = f->maps[uapi_shmem_index(iod->addr)] + uapi_shmem_offset(iod->addr);

		memcpy(reads ? mem : at, reads ? at : mem, bytes);
	} else if (reads) {
		abi_give(s, tag, at, bytes);
	} else {
		abi_take(s, tag, at, bytes);
	}
	return (int)bytes;
}

void requires_foreign(void)
{
	if (is_ours() && access("/sys/module/ublk_drv/parameters/foreign_memory", F_OK)) {
		print_message("this kernel does not say what memory is gone\n");
		skip();
	}
	requires_feature(UAPI_F_SHMEM_FOREIGN | UAPI_F_SHMEM_HINTS);
}

struct foreign *foreign_start(size_t len)
{
	struct foreign *f;

	requires_foreign();
	f = shared_pages((sizeof(*f) + PAGE - 1) / PAGE);
	f->peer = peer_start();
	add_with(&f->s, FOREIGN_FLAGS);
	f->s.handler = serve_stored;
	abi_start(&f->s);
	f->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_true(f->event >= 0);
	assert_int_equal(peer_do(f->peer, PEER_OPEN, f->s.device, 0), 0);
	assert_int_equal(peer_do(f->peer, PEER_MAP, 0, len), 0);
	return f;
}

void foreign_end(struct foreign *f)
{
	f->s.hold = false;
	peer_end(f->peer);
	for (unsigned int i = 0; i < FOREIGN_BUFS; i++)
		if (f->maps[i])
			munmap(f->maps[i], STORED);
	abi_del(&f->s);
	close(f->event);
	munmap(f, (sizeof(*f) + PAGE - 1) / PAGE * PAGE);
	assert_nothing_pinned();
}

int foreign_reg(struct foreign *f, size_t at, size_t len)
{
	struct uapi_shmem_foreign_reg reg = {
		.addr = (uintptr_t)f->peer->mem + at,
		.len = len,
		.pid = (uint32_t)f->peer->pid,
		.event_fd = f->event,
	};

	return abi_command(&f->s, UAPI_CMD_REG_FOREIGN, f->s.device, (uintptr_t)&reg, sizeof(reg),
			   0);
}

unsigned int foreign_take(struct foreign *f, size_t at, size_t len)
{
	int index = foreign_reg(f, at, len);
	void *map;

	assert_true(index >= 0 && index < (int)FOREIGN_BUFS);
	if (f->maps[index])
		return (unsigned int)index; /* the mapping is of the index */
	map = mmap(NULL, STORED, PROT_READ | PROT_WRITE, MAP_SHARED, f->s.char_fd,
		   (off_t)(UAPI_FOREIGN_OFFSET + ((uint64_t)index << 32)));
	assert_true(map != MAP_FAILED);
	f->maps[index] = map;
	return (unsigned int)index;
}

uint32_t foreign_flags(struct foreign *f, unsigned int index)
{
	struct uapi_shmem_buf_info info;
	int nr = abi_command(&f->s, UAPI_CMD_LIST_BUFS, f->s.device, (uintptr_t)&info, sizeof(info),
			     index);

	assert_true(nr >= 0);
	return nr && info.index == index ? info.flags : 0;
}

bool foreign_was_told(struct foreign *f)
{
	uint64_t nr;

	return read(f->event, &nr, sizeof(nr)) == sizeof(nr);
}

void foreign_wait_ended(struct foreign *f, unsigned int index)
{
	struct pollfd event = { .fd = f->event, .events = POLLIN };

	assert_int_equal(poll(&event, 1, 20000), 1);
	assert_true(foreign_was_told(f));
	assert_true(foreign_flags(f, index) & UAPI_SHMEM_BUF_ENDED);
	for (int i = 0; i < 500 && foreign_flags(f, index) & UAPI_SHMEM_BUF_DYING; i++)
		usleep(10000);
	assert_int_equal(foreign_flags(f, index), UAPI_SHMEM_BUF_FOREIGN | UAPI_SHMEM_BUF_ENDED);
}

static sigjmp_buf no_memory;

static void note_sigbus(int signal)
{
	(void)signal;
	siglongjmp(no_memory, 1);
}

bool foreign_is_mapped(struct foreign *f, unsigned int index, size_t at)
{
	struct sigaction note = { .sa_handler = note_sigbus }, before;
	volatile bool mapped = false;

	sigaction(SIGBUS, &note, &before);
	if (!sigsetjmp(no_memory, 1)) {
		(void)*(volatile uint8_t *)(f->maps[index] + at);
		mapped = true;
	}
	sigaction(SIGBUS, &before, NULL);
	return mapped;
}

bool foreign_read_in_place(struct foreign *f, size_t at, size_t len)
{
	static uint8_t value = 0x20;

	value = value == 0xf0 ? 0x20 : value + 1;
	memset(f->stored, value, len);
	assert_int_equal(peer_do(f->peer, PEER_READ, at, len), len);
	assert_int_equal(peer_with(f->peer, PEER_SAME, at, len, value), 1);
	return (f->s.last_op_flags & UAPI_IO_F_SHMEM_ZC) != 0;
}

bool foreign_write_in_place(struct foreign *f, size_t at, size_t len)
{
	static uint8_t value = 0x20;

	value = value == 0xf0 ? 0x20 : value + 1;
	assert_int_equal(peer_with(f->peer, PEER_FILL, at, len, value), 0);
	memset(f->stored, 0, len);
	assert_int_equal(peer_do(f->peer, PEER_WRITE, at, len), len);
	assert_int_equal(f->stored[0], value);
	assert_memory_equal(f->stored, f->stored + 1, len - 1);
	return (f->s.last_op_flags & UAPI_IO_F_SHMEM_ZC) != 0;
}
