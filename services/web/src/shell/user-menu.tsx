import { Avatar, Group, Menu, Text, UnstyledButton, useMantineColorScheme } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconCheck, IconDeviceDesktop, IconKey, IconLogout, IconMoon, IconSun } from "@tabler/icons-react";
import { useBackend, useUser } from "../api/backend";
import { PasswordDialog } from "../auth/password-dialog";
import { initials, label } from "../lib/format";

const SCHEMES = [
  { value: "light", text: "Light", Icon: IconSun },
  { value: "dark", text: "Dark", Icon: IconMoon },
  { value: "auto", text: "Like the system", Icon: IconDeviceDesktop },
] as const;

export function UserMenu() {
  const { auth } = useBackend();
  const user = useUser();
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const [password, passwordDialog] = useDisclosure(false);
  const name = user.displayName ?? user.username;
  return (
    <>
      <Menu width={240}>
        <Menu.Target>
          <UnstyledButton data-testid="user-menu" aria-label={`Account of ${name}`} style={{ borderRadius: 99 }}>
            <Avatar radius="xl" color="brand" variant="filled" size={36}>
              {initials(name)}
            </Avatar>
          </UnstyledButton>
        </Menu.Target>
        <Menu.Dropdown>
          <Group px="sm" py="xs" gap={2} style={{ flexDirection: "column", alignItems: "flex-start" }}>
            <Text fw={600} size="sm" truncate maw={210}>
              {name}
            </Text>
            <Text size="xs" c="dimmed" truncate maw={210}>
              {user.username} · {label(user.role)}
            </Text>
          </Group>
          <Menu.Divider />
          <Menu.Label>Theme</Menu.Label>
          {SCHEMES.map(({ value, text, Icon }) => (
            <Menu.Item
              key={value}
              closeMenuOnClick={false}
              leftSection={<Icon size={16} aria-hidden />}
              rightSection={colorScheme === value ? <IconCheck size={16} aria-label="chosen" /> : null}
              onClick={() => setColorScheme(value)}
            >
              {text}
            </Menu.Item>
          ))}
          <Menu.Divider />
          <Menu.Item leftSection={<IconKey size={16} aria-hidden />} onClick={passwordDialog.open}>
            Change password
          </Menu.Item>
          <Menu.Item
            data-testid="sign-out"
            color="red"
            leftSection={<IconLogout size={16} aria-hidden />}
            onClick={() => void auth.signOut()}
          >
            Sign out
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
      <PasswordDialog opened={password} onClose={passwordDialog.close} />
    </>
  );
}
